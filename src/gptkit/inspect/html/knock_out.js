"use strict";
// View 7: what each part of the model is worth, by the loss without it.

view({
  id: "knock-out",
  title: "Knock-out",
  lead: "What a part is worth to the text: its output is set to zero, and all that comes after it is computed again. For a head, that is its slice of the heads' outputs before the output projection, whose bias stays; for an attention or an MLP, all that it adds, bias included. Losses are sums over the text. The parts that change the loss most matter most; where the loss falls, the text is better off without them.",
  build(body) {
    const { knock_out: found, answer_knock_out: ofAnswer } = data;
    if (!found) {
      if (data.isLive) body.append(element("p", { class: "note" }, "The copy is computing it: the text once without each part."));
      else body.append(element("p", {}, `Left out: it takes about ${plural(Math.round(data.knock_out_seconds), "second")} on two cores. Run the same command with `,
        element("kbd", {}, "--knock-out"), ", or with a shorter text."));
      return () => {};
    }
    const parts = partsOf(found), whole = found.whole.values.subarray(0, LAST).reduce((sum, value) => sum + value, 0);
    const [kinds, updateKinds] = choices("What is set to zero", [["head", "a head"], ["attention", "the attention of a layer"], ["MLP", "the MLP of a layer"]], (part) => select({ part }));
    const title = element("h3", {}), readout = element("p", { class: "readout" }), chart = element("div", {});
    const ofText = element("div", {}), ofToken = element("div", {}), answer = element("div", { class: "answer" });
    const [numbers, updateNumbers] = numbersOf("Table of all parts", () => table("Change of the text's surprisal, in nats",
      ["layer", ...Array.from({ length: HEADS }, (_, head) => `head ${head}`), "attention", "MLP"],
      Array.from({ length: LAYERS }, (_, layer) => ({
        cells: [String(layer), ...parts.filter((each) => each.layer === layer).map(({ total }) => signed(total))],
        current: layer === state.layer,
      }))));
    body.append(kinds, title, readout, chart, numbers, element("div", { class: "columns" }, ofText, ofToken), answer);

    return (now) => {
      const { token: at, layer, head, part } = now;
      const chosen = parts.find((each) => each.layer === layer && each.part === part && (part !== "head" || each.head === head));
      const values = data.tokens.pieces.map((_, index) => (index ? chosen.changes[index - 1] : null));
      updateKinds(part);
      title.textContent = `Without ${chosen.name}: the change of each token's surprisal, in nats`;
      readout.textContent = `surprisal of the text: ${number(whole)} nats, without ${chosen.name} ${number(whole + chosen.total)} (${signed(chosen.total)})`;
      chart.replaceChildren(picture(`Change of the surprisal of ${plural(LAST, "token")} without ${chosen.name}; for all parts together in the table below`,
        barChart({ width: pageWidth, values, current: at + 1, name: at === LAST ? "" : `${target(at)} ${signed(chosen.changes[at], 2)}`, least: 0.1, choose: (index) => select({ token: index - 1 }) })));
      updateNumbers();
      const next = [at === LAST ? "the most likely token " : "the next token ", word(target(at)), " after ", ...tokenName(at)];
      ofText.replaceChildren(mattering("The ten that matter most to the text", parts, chosen, ({ total }) => total));
      ofToken.replaceChildren(mattering(["The ten that matter most to ", ...next], parts, chosen, ({ changes }) => changes[at]));
      if (ofAnswer) answer.replaceChildren(mattering("The ten that matter most to the answer", partsOf(ofAnswer), chosen, ({ total }) => total),
        element("p", { class: "note" }, `The label is the model's own answer, whose loss is ${number(ofAnswer.whole.at(), 4)}.`));
    };
  },
});

// Every part with the changes of the loss: at each position, and of the text or the answer.
function partsOf({ changes, totals }) {
  return Array.from(totals.values, (total, index) => {
    const layer = Math.floor(index / (HEADS + 2)), head = index % (HEADS + 2), part = PARTS[Math.max(head - HEADS + 1, 0)];
    return { part, layer, head, name: part === "head" ? `head ${layer}.${head}` : `${part} ${layer}`, total, changes: changes.row(layer, head) };
  });
}

function mattering(caption, parts, chosen, changeOf) {
  const most = [...parts].sort((one, other) => Math.abs(changeOf(other)) - Math.abs(changeOf(one))).slice(0, 10);
  const scale = Math.max(...most.map((each) => Math.abs(changeOf(each))));
  return table(caption, ["without", "change of the loss (nats)"], most.map((each) => ({
    cells: [each.name, bar(changeOf(each), scale, signed(changeOf(each)), true)],
    current: each.name === chosen.name,
    choose: () => select({ part: each.part, layer: each.layer, ...(each.part === "head" ? { head: each.head } : {}) }),
  })));
}
