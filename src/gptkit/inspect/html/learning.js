"use strict";
// View 9: the same text in the weights that the training run kept, one after the other.

view({
  id: "learning",
  title: "Learning",
  lead: "The same text as the model came to read it: move the slider from the first weights that the run kept to the last, which are this model's.",
  build(body) {
    const learned = data.learning;
    if (!learned) {
      body.append(element("p", { class: "note" }, data.isLive
        ? "The page has the weights of the run's earlier steps for its own text alone: go back to it in the live view."
        : "gptkit inspect TEXT --checkpoints RUN shows it, for a model of gptkit pretrain."));
      return () => {};
    }
    const frames = learned.steps.shape[0], labels = Array.from(learned.steps.values, (step) => step.toLocaleString("en"));
    const means = Float32Array.from(upTo(frames), (frame) => learned.nll.row(frame).subarray(0, LAST).reduce((sum, value) => sum + value, 0) / Math.max(LAST, 1));
    const slider = element("input", { type: "range", min: 0, max: frames - 1, step: 1, "aria-label": "Step of training", oninput: () => select({ frame: Number(slider.value) }) });
    const step = element("output", {}), curves = element("div", { class: "columns" }), surprisal = element("div", {}), lens = element("div", {}), sample = element("div", {});
    const [numbers, updateNumbers] = numbersOf("Table of all steps", () => table("Along the run", ["step", "mean surprisal (nats)", ...data.heads.types.map((type) => `heads: ${type}`)],
      upTo(frames).map((frame) => ({
        cells: [labels[frame], number(means[frame], 4), ...data.heads.types.map((_, type) => String(namedHeads(frame).filter((named) => named === type).length))],
        current: frame === state.frame,
        choose: () => select({ frame }),
      }))));
    body.append(element("label", { class: "slider wide" }, "step ", slider, " ", step), curves, numbers, surprisal, lens, sample);

    // The type of each head that has one, by the rule of HeadTypes.names.
    function namedHeads(frame) {
      return upTo(LAYERS).flatMap((layer) => upTo(HEADS).map((head) => {
        const scores = learned.heads.row(frame, layer, head), best = largest(scores);
        return scores[best] >= data.heads.named_from ? best : -1;
      })).filter((type) => type >= 0);
    }

    return ({ frame, token, layer, head }) => {
      const values = learned.nll.row(frame), width = pageWidth < 900 ? pageWidth : pageWidth / 2 - 16;
      const types = data.heads.types.map((_, type) => Float32Array.from(upTo(frames), (at) => learned.heads.at(at, layer, head, type)));
      const choose = (at) => select({ frame: at });
      slider.value = frame;
      step.textContent = labels[frame];
      curves.replaceChildren(
        element("div", {}, element("h3", {}, "Mean surprisal of the text, in nats"), picture(`Mean surprisal at ${frames} steps; numbers in the table below`,
          lineChart({ width, series: [{ values: means, mark: "dot" }], labels, current: frame, low: 0, high: Math.max(...means), choose }))),
        element("div", {}, element("h3", {}, `Head ${layer}.${head}: `, types.map((scores, type) => [type ? ", " : "", element("span", { class: "pair" }, `${data.heads.types[type]} ${"●○×"[type]} ${number(scores[frame], 2)}`)])), picture(`Types of head ${layer}.${head} at ${frames} steps`,
          lineChart({ width, series: types.map((scores, type) => ({ values: scores, mark: ["dot", "ring", "cross"][type] })), labels, current: frame, low: 0, high: 1, choose }))));
      updateNumbers();
      const bars = data.tokens.pieces.map((_, index) => (index ? values[index - 1] : null));
      const name = token === LAST ? "" : `${target(token)} ${number(values[token], 2)}`;
      surprisal.replaceChildren(element("h3", {}, `Surprisal at step ${labels[frame]}`), picture(`Surprisal of ${plural(LAST, "token")} at step ${labels[frame]}`,
        barChart({ width: pageWidth, values: bars, current: token + 1, name, least: Math.max(...learned.nll.values), choose: (index) => select({ token: index - 1 }) })));
      lens.replaceChildren(...lensGrid(token, layer, pageWidth, { ids: (row, position) => learned.top_ids.at(frame, row, position), shares: (row, position) => learned.top_probabilities.at(frame, row, position) }));
      sample.replaceChildren(element("h3", {}, "What it wrote by itself, always from the same seed"), element("blockquote", {}, learned.samples[frame]));
    };
  },
});
