"use strict";
// The model's tokenizer in the page. Letters, numbers and spaces are those that Python's tokenizer knows, not the browser's.

// GPT-2's alphabet of the bytes: a printable character stands for itself, the n-th other byte is character 256 + n.
const BYTES = (() => {
  const isPrintable = (byte) => (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(isPrintable(byte) ? byte : 256 + others++));
})();

function characterClass(ranges) {
  const parts = [];
  for (let index = 0, point = 0; index < ranges.length; index += 2) {
    const first = point + ranges[index];
    point = first + ranges[index + 1];
    parts.push(`\\u{${first.toString(16)}}-\\u{${(point - 1).toString(16)}}`);
  }
  return parts.join("");
}

function liveTokenizer(stored) {
  const ids = new Map(stored.tokens.map((token, id) => [token, id]));
  const byteOf = new Map(BYTES.map((symbol, byte) => [symbol, byte]));
  if (!stored.merges) return {
    ...stored,
    encode: (text) => Array.from(text, (character) => (character === "" ? stored.unknown : ids.get(character) ?? stored.unknown)),
    decode: (given) => given.map((id) => stored.tokens[id] ?? "").join(""),
  };
  const [letters, numbers, spaces] = [stored.letters, stored.numbers, stored.spaces].map(characterClass);
  // GPT-2's expression (openai/gpt-2, src/encoder.py), with the classes written out.
  const pieces = new RegExp(`'s|'t|'re|'ve|'m|'ll|'d| ?[${letters}]+| ?[${numbers}]+| ?[^${spaces}${letters}${numbers}]+|[${spaces}]+(?![^${spaces}])|[${spaces}]+`, "gu");
  const size = stored.tokens.length;
  const ranks = new Map(stored.merges.map(([first, second], rank) => [first * size + second, rank]));
  const merged = stored.merges.map(([first, second]) => ids.get(stored.tokens[first] + stored.tokens[second]));
  const known = new Map();

  function encodePiece(piece) {
    const symbols = Array.from(new TextEncoder().encode(piece), (byte) => ids.get(BYTES[byte]));
    while (symbols.length > 1) {
      let best = Infinity, place = -1;
      for (let at = 0; at + 1 < symbols.length; at++) {
        const rank = ranks.get(symbols[at] * size + symbols[at + 1]) ?? Infinity;
        if (rank < best) [best, place] = [rank, at];
      }
      if (place < 0) break;
      symbols.splice(place, 2, merged[best]);
    }
    return symbols;
  }

  function encode(text) {
    return (text.match(pieces) ?? []).flatMap((piece) => {
      if (!known.has(piece)) known.set(piece, encodePiece(piece));
      return known.get(piece);
    });
  }
  const isBytes = (token) => [...token].every((symbol) => byteOf.has(symbol));
  const bytes = (id) => {
    const token = stored.tokens[id] ?? "";
    return stored.special.includes(id) || !isBytes(token) ? new TextEncoder().encode(token) : [...token].map((symbol) => byteOf.get(symbol));
  };
  return { ...stored, encode, decode: (given) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(given.flatMap((id) => [...bytes(id)]))) };
}
