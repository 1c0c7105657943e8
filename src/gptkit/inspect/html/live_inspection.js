"use strict";
// What the views show of a text, from the rows of the model in the page: the same parts, by the same rules, as Python's.

const joined = (parts) => {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
};
const column = (values, ...shape) => arrayOf(shape.length ? shape : [values.length], Float32Array.from(values));

function inspectionOf(model, tokenizer, rows, text, off, whole) {
  const ids = rows.map(({ id }) => id), length = rows.length, width = model.n_embd;
  const targets = [...ids.slice(1), largest(rows.at(-1).logits)];
  return {
    ...whole,
    isLive: true,
    knock_out: null, // computed later
    learning: null, // its weights are not in the page
    fields: [["text", text]],
    vocabulary: tokenizer.shown,
    tokens: {
      ids: column(ids),
      pieces: ids.map((id) => tokenizer.shown[id]),
      token_embedding: arrayOf([length, width], joined(rows.map(({ token }) => token))),
      position_embedding: arrayOf([length, width], joined(rows.map(({ position }) => position))),
    },
    attention: attentionOf(model, rows),
    hand: handOf(model, rows, whole.hand),
    handOf: (layer, head) => handOf(model, rows, { layer, head }),
    off,
    path: { sites: whole.path.sites, ...pathOf(rows) },
    lens: lensAlong(model, rows, targets),
    shares: sharesOf(model, rows, targets),
    loss: lossOf(rows, targets, whole.loss),
  };
}

const largest = (values) => values.reduce((best, value, index) => (value > values[best] ? index : best), 0);
const rankOf = (target, values) =>
  values.reduce((rank, value, id) => rank + (value > values[target] || (value === values[target] && id < target)), 1);

// As data.js expects them, unrounded: weight = exp(-code^2), score = log-sum-exp - code^2.
function attentionOf({ n_layer: layers, n_head: heads }, rows) {
  const length = rows.length, logSums = [], codes = [];
  for (const layer of upTo(layers)) for (const head of upTo(heads)) for (const row of rows) {
    const scores = row.layers[layer].scores[head], { logSum } = softmax(scores);
    logSums.push(logSum);
    codes.push(scores.map((score) => Math.sqrt(Math.max(logSum - score, 0))));
  }
  return {
    error: 0,
    codes: arrayOf([layers, heads, (length * (length + 1)) / 2], joined(codes)),
    scale: column(logSums.map(() => 1), layers, heads, length),
    log_sum: column(logSums, layers, heads, length),
  };
}

function handOf({ n_embd: width, n_head: heads }, rows, { layer, head }) {
  const size = width / heads;
  const part = (name) => arrayOf([rows.length, size], joined(rows.map(({ layers }) => layers[layer][name].subarray(head * size, (head + 1) * size))));
  return { layer, head, query: part("query"), key: part("key"), value: part("value"), output: part("attended") };
}

function pathOf(rows) {
  const places = upTo(rows[0].residual.length), shape = [places.length, rows.length];
  const cosine = (one, other) => dot(one, other) / (Math.sqrt(dot(one, one) * dot(other, other)) || 1);
  const at = (measure) => column(places.flatMap((place) => rows.map(({ residual }) => measure(residual, place))), ...shape);
  return {
    norms: at((residual, place) => Math.sqrt(dot(residual[place], residual[place]))),
    turn: at((residual, place) => cosine(residual[place], residual[Math.max(place - 1, 0)])),
    to_end: at((residual, place) => cosine(residual[place], residual.at(-1))),
  };
}
