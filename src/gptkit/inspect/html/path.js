"use strict";
// View 4: the residual stream of one token from the embeddings to the end, and what the model would say at each layer.

view({
  id: "path",
  title: "Path of a token",
  lead: data.family === "GPT-1"
    ? "Every sublayer adds to the token's vector, and GPT-1 then normalizes the sum: the vector is shown after that layer norm. The logit lens asks each layer's vector for its prediction. Before the first layer it often repeats the token, whose embedding it is."
    : "Every sublayer adds to the token's vector, the residual stream. The logit lens puts the vector after each layer through the final layer norm and asks it for its prediction. Before the first layer it often repeats the token, whose embedding it is.",
  build(body) {
    const { sites, norms, turn, to_end: toEnd } = data.path;
    const labels = sites.map((_, site) => (site === 0 ? "emb" : `${Math.floor((site - 1) / 2)}${site % 2 ? "a" : "m"}`));
    const siteOf = (layer) => 2 * layer + 2; // after the layer's MLP
    const along = (array, token) => Float32Array.from(sites, (_, site) => array.at(site, token));
    const chooseSite = (site) => select({ layer: Math.max(Math.floor((site - 1) / 2), 0) });
    const charts = element("div", { class: "columns" }), lens = element("div", {}), list = element("div", {});
    const [numbers, updateNumbers] = numbersOf("Table of the path", () => table(`Path of ${plainName(state.token)}`,
      ["place", "norm", "cosine with the place before", "cosine with the end"],
      sites.map((site, index) => ({
        cells: [site, number(norms.at(index, state.token)), number(turn.at(index, state.token), 4), number(toEnd.at(index, state.token), 4)],
        current: index === siteOf(state.layer),
      }))));
    body.append(charts,
      element("p", { class: "note" }, "emb: the embeddings, with no place before them; 0a: after the attention of layer 0; 0m: after its MLP; and so on."), numbers, lens, list);

    return ({ token, layer }) => {
      const current = siteOf(layer), norm = along(norms, token), turns = along(turn, token), ends = along(toEnd, token);
      const low = Math.min(0, ...turns, ...ends), width = pageWidth < 900 ? pageWidth : pageWidth / 2 - 16;
      charts.replaceChildren(
        element("div", {}, element("h3", {}, "Norm of ", tokenName(token)), picture(`Norm at ${sites.length} places, ${number(norm[0], 2)} to ${number(norm.at(-1), 2)}; numbers in the table below`,
          lineChart({ width, series: [{ values: norm, mark: "dot" }], labels, current, low: 0, high: Math.max(...norm), choose: chooseSite }))),
        element("div", {}, element("h3", {}, "Direction: cosine with the place before ● and with the end ○"), picture("Cosines at each place; numbers in the table below",
          lineChart({ width, series: [{ values: turns, mark: "dot" }, { values: ends, mark: "ring" }], labels, current, low, high: 1, choose: chooseSite }))));
      updateNumbers();
      lens.replaceChildren(...lensGrid(token, layer, pageWidth));
      list.replaceChildren(...lensOf(token, layer));
    };
  },
});

const lensRow = (row) => (row === 0 ? "embeddings" : `layer ${row - 1}`);

// The most likely token by layer and position, around the chosen token; ✓ where it is the true next token.
const ownLens = { ids: (row, position) => data.lens.top_ids.at(row, position, 0), shares: (row, position) => data.lens.top_probabilities.at(row, position, 0) };
function lensGrid(token, layer, width, { ids, shares } = ownLens) {
  const shown = Math.min(LENGTH, Math.max(3, Math.min(11, Math.floor((width - 90) / 96))));
  const start = Math.min(Math.max(token - Math.floor(shown / 2), 0), LENGTH - shown);
  const positions = Array.from({ length: shown }, (_, index) => start + index);
  const head = element("tr", {}, element("th", { scope: "col" }, "after"), positions.map((position) =>
    element("th", { scope: "col", "aria-current": position === token && "true" }, word(data.tokens.pieces[position]))));
  const rows = Array.from({ length: LAYERS + 1 }, (_, row) => element("tr", {}, element("th", { scope: "row" }, lensRow(row)),
    positions.map((position) => {
      const id = ids(row, position), share = shares(row, position);
      const isTrue = id === data.loss.targets.at(position) && position < LAST;
      const cell = element("td", {
        "aria-current": position === token && row === layer + 1 && "true",
        onclick: () => select({ token: position, layer: Math.max(row - 1, 0) }),
        title: `${piece(id)}: ${percent(share)}`,
      }, element("div", {}, word(piece(id)), isTrue ? "✓" : "", element("small", {}, percent(share))));
      cell.style.setProperty("--share", `${Math.round(55 * share)}%`);
      return cell;
    })));
  return [element("h3", {}, "Logit lens: the most likely next token after each layer (✓ the true one)"),
    element("div", { class: "scroll whole", tabindex: 0, role: "region", "aria-label": "Logit lens", "data-arrows": "token layer" },
      element("table", { class: "lens" }, element("caption", {}, "Most likely next token"), element("thead", {}, head), element("tbody", {}, rows)))];
}

function lensOf(token, layer) {
  const { top_ids: ids, top_probabilities: probabilities, rank, kl } = data.lens;
  const isLast = token === LAST;
  const rows = Array.from({ length: LAYERS + 1 }, (_, row) => ({
    cells: [lensRow(row),
      ...Array.from(ids.row(row, token), (id, index) => [word(piece(id)), " ", element("small", {}, percent(probabilities.at(row, token, index)))]),
      rank.at(row, token).toLocaleString("en"), number(kl.at(row, token))],
    current: row === layer + 1,
    choose: () => select({ layer: Math.max(row - 1, 0) }),
  }));
  const likeliest = Array.from({ length: ids.shape[2] }, (_, index) => `${index + 1}.`);
  return [element("h3", {}, "After ", tokenName(token), isLast ? ", the most likely next token is " : ", the true next token is ", word(target(token))),
    element("div", { class: "scroll whole", tabindex: 0, role: "region", "aria-label": "Five most likely tokens by layer", "data-arrows": "token layer" },
      table(`Logit lens of ${plainName(token)}`, ["after", ...likeliest, isLast ? "rank of that token" : "rank of the true token", "KL to the end (nats)"], rows))];
}
