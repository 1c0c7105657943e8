"use strict";
// What the views show of the predictions of the model in the page: the lens, the loss, and whose work they are.

function lensAlong(model, rows, targets) {
  const seen = upTo(model.n_layer + 1).map((layer) => rows.map((row) => (row.lens ??= lensOfRow(model, row))[layer]));
  const likeliest = seen[0][0].top.length, shape = [model.n_layer + 1, rows.length];
  return {
    top_ids: column(seen.flat().flatMap(({ top }) => top), ...shape, likeliest),
    top_probabilities: column(seen.flat().flatMap(({ top, weights }) => top.map((id) => weights[id])), ...shape, likeliest),
    rank: column(seen.flatMap((layer) => layer.map(({ logits }, at) => rankOf(targets[at], logits))), ...shape),
    kl: column(seen.flat().map(({ kl }) => kl), ...shape),
  };
}

function lensOfRow(model, row) {
  const own = softmax(row.logits);
  return row.residual.filter((_, place) => place % 2 === 0).map((stream, layer) => {
    const logits = layer === model.n_layer ? row.logits : readOut(model, stream), { weights, logSum } = softmax(logits);
    const kl = own.weights.reduce((sum, weight, id) => sum + weight * (row.logits[id] - own.logSum - logits[id] + logSum), 0);
    return { logits, weights, top: likeliest(logits, data.loss.top_ids.shape[1]), kl: Math.max(kl, 0) };
  });
}

// The ids of the largest numbers, largest first.
function likeliest(values, count) {
  const found = [];
  for (let id = 0; id < values.length; id++) {
    if (found.length === count && values[id] <= values[found.at(-1)]) continue;
    const place = found.findIndex((other) => values[id] > values[other]);
    found.splice(place < 0 ? found.length : place, 0, id);
    if (found.length > count) found.pop();
  }
  return found;
}

// The probability of the likeliest token, of the two likeliest, and so on.
function massReached(weights) {
  const reached = Float32Array.from(weights).sort().reverse();
  let sum = 0;
  return reached.map((weight) => (sum += weight));
}

function lossOf(rows, targets, { ks, ps }) {
  const count = data.loss.top_ids.shape[1];
  const each = rows.map((row, at) => {
    const { weights, logSum } = softmax(row.logits), reached = (row.reached ??= massReached(weights)), target = targets[at];
    const rank = rankOf(target, row.logits);
    return {
      nll: logSum - row.logits[target], rank, top: likeliest(row.logits, count), weights,
      above: rank > 1 ? reached[rank - 2] : 0,
      entropy: weights.reduce((sum, weight, id) => sum - (weight ? weight * (row.logits[id] - logSum) : 0), 0),
      kept: Array.from(ks.values, (k) => reached[Math.min(k, reached.length) - 1]),
      counts: Array.from(ps.values, (p) => 1 + reached.subarray(0, -1).reduce((sum, value) => sum + (value < p), 0)),
    };
  });
  return {
    ks, ps,
    targets: column(targets),
    nll: column(each.map(({ nll }) => nll)),
    rank: column(each.map(({ rank }) => rank)),
    top_ids: column(each.flatMap(({ top }) => top), rows.length, count),
    top_probabilities: column(each.flatMap(({ top, weights }) => top.map((id) => weights[id])), rows.length, count),
    mass_above: column(each.map(({ above }) => above)),
    entropy: column(each.map(({ entropy }) => entropy)),
    top_k_mass: column(upTo(ks.values.length).flatMap((k) => each.map(({ kept }) => kept[k])), ks.values.length, rows.length),
    top_p_kept: column(upTo(ps.values.length).flatMap((p) => each.map(({ counts }) => counts[p])), ps.values.length, rows.length),
  };
}

// The parts of the targets' logits: the gradient of a logit by the stream, taken back place by place (shares.py).
function sharesOf(model, rows, targets) {
  const each = rows.map((row, at) => sharesOfRow(model, row, targets[at])), layers = upTo(model.n_layer), length = rows.length;
  return {
    heads: column(layers.flatMap((layer) => upTo(model.n_head).flatMap((head) => each.map(({ heads }) => heads[layer][head]))), model.n_layer, model.n_head, length),
    mlps: column(layers.flatMap((layer) => each.map(({ mlps }) => mlps[layer])), model.n_layer, length),
    ...Object.fromEntries(["token", "position", "bias", "logit"].map((name) => [name, column(each.map((row) => row[name]))])),
  };
}

function sharesOfRow(model, row, target) {
  const { n_head: heads, n_embd: width, layer_norm_epsilon: epsilon, pre_norm: isPreNorm } = model, size = width / heads;
  let gradient = Float64Array.from(model.head.row(target)), bias = 0;
  const found = { heads: [], mlps: [], logit: row.logits[target] };
  function backThrough(norm, seen) {
    const { variance } = statistics(seen);
    bias += dot(gradient, norm.bias);
    gradient = gradient.map((value, index) => (value * norm.weight[index]) / Math.sqrt(variance + epsilon));
    const { mean } = statistics(gradient);
    gradient = gradient.map((value) => value - mean);
  }
  if (model.last) backThrough(model.last, row.residual.at(-1));
  for (const index of upTo(model.n_layer).reverse()) {
    const layer = model.layers[index], { mlp, attention, attended } = row.layers[index];
    const [start, between] = [row.residual[2 * index], row.residual[2 * index + 1]];
    if (!isPreNorm) backThrough(layer.ln2, plus(between, mlp));
    bias += dot(gradient, layer.down.bias);
    found.mlps[index] = dot(gradient, mlp) - dot(gradient, layer.down.bias);
    if (!isPreNorm) backThrough(layer.ln1, plus(start, attention));
    bias += dot(gradient, layer.projection.bias);
    const byInput = timesTransposed(gradient, layer.projection.weight);
    found.heads[index] = upTo(heads).map((head) => dot(byInput.subarray(head * size, (head + 1) * size), attended.subarray(head * size, (head + 1) * size)));
  }
  return { ...found, bias, token: dot(gradient, row.token), position: dot(gradient, row.position) };
}

// The change of each token's surprisal without each part, where `nll` (part, position) is that of every run without one.
function knockOutOf(model, whole, nll) {
  const layers = model.n_layer, parts = model.n_head + 2, length = whole.length;
  const changes = nll.map((row) => row.map((value, position) => value - whole[position]));
  return {
    whole: column(whole),
    changes: column(changes.flat(), layers, parts, length),
    totals: column(changes.map((row) => row.slice(0, -1).reduce((sum, value) => sum + value, 0)), layers, parts),
  };
}

const surprisals = (rows, targets) => rows.map(({ logits }, at) => softmax(logits).logSum - logits[targets[at]]);
