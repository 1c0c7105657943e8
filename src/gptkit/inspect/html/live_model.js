"use strict";
// The model's copy in the page, one position at a time: everything that it computes on the way is kept in a row.

// A matrix (row, column) times a vector, plus a bias.
function times({ shape: [rows, columns], values }, vector, bias) {
  const product = new Float32Array(rows);
  for (let row = 0, at = 0; row < rows; row++, at += columns) {
    let first = 0, second = 0, third = 0, fourth = 0, column = 0;
    for (; column + 3 < columns; column += 4) {
      first += values[at + column] * vector[column];
      second += values[at + column + 1] * vector[column + 1];
      third += values[at + column + 2] * vector[column + 2];
      fourth += values[at + column + 3] * vector[column + 3];
    }
    for (; column < columns; column++) first += values[at + column] * vector[column];
    product[row] = first + second + third + fourth + (bias ? bias[row] : 0);
  }
  return product;
}

// A vector times a matrix (row, column).
function timesTransposed(vector, { shape: [rows, columns], values }) {
  const product = new Float64Array(columns);
  for (let row = 0, at = 0; row < rows; row++, at += columns)
    for (let column = 0; column < columns; column++) product[column] += vector[row] * values[at + column];
  return product;
}

const plus = (one, other) => one.map((value, index) => value + other[index]);
const dot = (one, other) => one.reduce((sum, value, index) => sum + value * other[index], 0);

function statistics(vector) {
  const mean = vector.reduce((sum, value) => sum + value, 0) / vector.length;
  return { mean, variance: vector.reduce((sum, value) => sum + (value - mean) ** 2, 0) / vector.length };
}

function normalized(vector, { weight, bias }, epsilon) {
  const { mean, variance } = statistics(vector), scale = 1 / Math.sqrt(variance + epsilon);
  return vector.map((value, index) => (value - mean) * scale * weight[index] + bias[index]);
}

// erf to 1.2e-7: Numerical Recipes, section 6.2.2.
function erf(x) {
  const t = 1 / (1 + Math.abs(x) / 2);
  const series = [1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277];
  const sum = series.reduceRight((rest, factor) => factor + t * rest, 0);
  return Math.sign(x) * (1 - t * Math.exp(-x * x - 1.26551223 + t * sum));
}

const ACTIVATIONS = {
  gelu_new: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
};

function liveModel({ config, matrices, vectors }) {
  const weights = Object.fromEntries(Object.entries(matrices).map(([name, { codes, scale }]) => {
    const values = Float32Array.from(codes.values, (code, index) => code * scale.values[Math.floor(index / codes.shape[1])]);
    return [name, { shape: codes.shape, values, row: (row) => values.subarray(row * codes.shape[1], (row + 1) * codes.shape[1]) }];
  }));
  const linear = (name) => ({ weight: weights[`${name}.weight`], bias: vectors[`${name}.bias`].values });
  const norm = (name) => ({ weight: vectors[`${name}.weight`].values, bias: vectors[`${name}.bias`].values });
  const layers = Array.from({ length: config.n_layer }, (_, layer) => ({
    ln1: norm(`h.${layer}.ln_1`), qkv: linear(`h.${layer}.attn.c_attn`), projection: linear(`h.${layer}.attn.c_proj`),
    ln2: norm(`h.${layer}.ln_2`), up: linear(`h.${layer}.mlp.c_fc`), down: linear(`h.${layer}.mlp.c_proj`),
  }));
  const last = config.pre_norm ? norm("ln_f") : null, activation = ACTIVATIONS[config.activation_function];
  return { ...config, layers, last, activation, tokens: weights["wte.weight"], head: weights["lm_head.weight"] ?? weights["wte.weight"], positions: weights["wpe.weight"] };
}

// What the model predicts from a place of the stream.
const readOut = (model, stream) =>
  times(model.head, model.last ? normalized(stream, model.last, model.layer_norm_epsilon) : stream);

// The row of `id` after the rows of the tokens before it; `off` has the parts that write nothing: a head as layer.head, else as
// attention layer or MLP layer.
function nextRow(model, rows, id, off) {
  const { layer_norm_epsilon: epsilon, pre_norm: isPreNorm, activation } = model;
  const token = model.tokens.row(id), position = model.positions.row(rows.length);
  const row = { id, token, position, residual: [plus(token, position)], layers: [] };
  rows.push(row);
  for (const [index, layer] of model.layers.entries()) {
    const stream = row.residual.at(-1), now = {};
    row.layers.push(now);
    attend(model, rows, index, times(layer.qkv.weight, isPreNorm ? normalized(stream, layer.ln1, epsilon) : stream, layer.qkv.bias), off);
    const isOn = (part) => !off.has(`${part} ${index}`), none = new Float32Array(model.n_embd);
    now.attention = isOn("attention") ? times(layer.projection.weight, now.attended, layer.projection.bias) : none;
    const written = plus(stream, now.attention), between = isPreNorm ? written : normalized(written, layer.ln1, epsilon);
    const inner = times(layer.up.weight, isPreNorm ? normalized(between, layer.ln2, epsilon) : between, layer.up.bias);
    now.mlp = isOn("MLP") ? times(layer.down.weight, inner.map(activation), layer.down.bias) : none;
    const after = plus(between, now.mlp);
    row.residual.push(between, isPreNorm ? after : normalized(after, layer.ln2, epsilon));
  }
  row.logits = readOut(model, row.residual.at(-1));
  return row;
}

// Adds to the last row's layer its queries, keys and values, the scores (head, key), and what the heads attended to.
function attend({ n_head: heads, n_embd: width }, rows, index, qkv, off) {
  const row = rows.at(-1), now = row.layers[index], size = width / heads;
  [now.query, now.key, now.value] = [0, 1, 2].map((part) => qkv.subarray(part * width, (part + 1) * width));
  now.attended = new Float32Array(width);
  now.scores = Array.from({ length: heads }, (_, head) => {
    const start = head * size, end = start + size, query = now.query.subarray(start, end);
    const scores = Float32Array.from(rows, ({ layers }) => dot(query, layers[index].key.subarray(start, end)) / Math.sqrt(size));
    if (off.has(`${index}.${head}`)) return scores;
    const { weights } = softmax(scores);
    rows.forEach(({ layers }, key) => {
      for (let at = start; at < end; at++) now.attended[at] += weights[key] * layers[index].value[at];
    });
    return scores;
  });
}

// The softmax of numbers, and the log of the sum of their exponentials.
function softmax(values) {
  const most = values.reduce((one, other) => Math.max(one, other), -Infinity);
  const weights = values.map((value) => Math.exp(value - most)), sum = weights.reduce((total, value) => total + value, 0);
  return { weights: weights.map((weight) => weight / sum), logSum: most + Math.log(sum) };
}
