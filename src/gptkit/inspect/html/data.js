"use strict";
// The numbers of the page: every array of the data block becomes {shape, values, at(i, j, ...), row(i, j, ...)}.

const TYPES = { u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i4: Int32Array, f4: Float32Array, f2: Uint16Array };

function halfToNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function unpack({ shape, type, data }) {
  const text = atob(data), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const stored = new TYPES[type](bytes.buffer);
  return arrayOf(shape, type === "f2" ? Float32Array.from(stored, halfToNumber) : stored);
}

function arrayOf(shape, values) {
  const start = (indices) => shape.reduce((sum, size, axis) => sum * size + (indices[axis] ?? 0), 0);
  return {
    shape,
    values,
    at: (...indices) => values[start(indices)],
    row: (...indices) => values.subarray(start(indices), start(indices) + shape.at(-1)), // along the last axis
  };
}

function unpackAll(part) {
  if (part === null || typeof part !== "object" || Array.isArray(part)) return part;
  if (typeof part.data === "string" && part.shape) return unpack(part);
  return Object.fromEntries(Object.entries(part).map(([name, inner]) => [name, unpackAll(inner)]));
}

let data, LENGTH, LAST; // LAST: the last position, what follows it is unknown

function setData(given) {
  data = given;
  LENGTH = data.tokens.pieces.length;
  LAST = LENGTH - 1;
}

setData(unpackAll(JSON.parse(document.getElementById("data").textContent)));
const [LAYERS, HEADS] = data.heads.scores.shape;

const piece = (id) => data.vocabulary[id] ?? `#${id}`;
const target = (position) => piece(data.loss.targets.at(position));

// Attention is stored in 8 bits: weight = exp(-scale q^2), score = lse - scale q^2, with a scale and an lse for each row.
function attention(layer, head, query) {
  const codes = data.attention.codes.row(layer, head);
  const scale = data.attention.scale.at(layer, head, query), logSum = data.attention.log_sum.at(layer, head, query);
  const first = (query * (query + 1)) / 2;
  const surprise = (key) => scale * codes[first + key] ** 2;
  return { weight: (key) => Math.exp(-surprise(key)), score: (key) => logSum - surprise(key) };
}
