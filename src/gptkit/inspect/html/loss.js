"use strict";
// View 6: how surprised the model is by each token, what it expected instead, and what sampling rules would leave of it.

view({
  id: "loss",
  title: "Loss",
  lead: "The loss is the mean surprisal of the true tokens, -ln of the probability that the model gave them. Top-k and top-p cut unlikely tokens before one is drawn; a cross marks each place where they would have cut the true one.",
  build(body) {
    const { nll, rank, top_ids: ids, top_probabilities: probabilities, entropy } = data.loss;
    const { ks, ps, top_k_mass: massOfK, top_p_kept: keptByP, mass_above: massAbove } = data.loss;
    const cutByK = (at, k) => rank.at(at) > ks.at(k), cutByP = (at, p) => massAbove.at(at) >= ps.at(p);
    const [kButtons, updateK] = choices("top-k", [...ks.values].map((k, index) => [index, `k ${k}`]), (k) => select({ k }));
    const [pButtons, updateP] = choices("top-p", [...ps.values].map((p, index) => [index, `p ${number(p, 2)}`]), (p) => select({ p }));
    const chart = element("div", {}), expected = element("div", {}), cuts = element("div", {}), byPosition = element("div", {});
    const [numbers, updateNumbers] = numbersOf("Table of all tokens", () => table("Surprisal",
      ["position", "token", "surprisal (nats)", "rank", "entropy before it (nats)", "top-k", "top-p"],
      Array.from({ length: LAST }, (_, at) => ({
        cells: [String(at + 1), word(data.tokens.pieces[at + 1]), number(nll.at(at), 4), rank.at(at).toLocaleString("en"), number(entropy.at(at)),
          cutByK(at, state.k) ? "cut" : "kept", cutByP(at, state.p) ? "cut" : "kept"],
        current: at === state.token,
        choose: () => select({ token: at }),
      }))));
    body.append(element("h3", {}, "Surprisal of each token, in nats"), chart, element("div", { class: "rules" }, kButtons, pButtons), numbers,
      element("div", { class: "columns" }, expected, element("div", {}, cuts, byPosition)));

    return ({ token: at, k, p }) => {
      updateK(k);
      updateP(p);
      const isLast = at === LAST, name = isLast ? "" : `${target(at)} ${number(nll.at(at), 2)}`;
      const values = data.tokens.pieces.map((_, index) => (index ? nll.at(index - 1) : null));
      const crosses = data.tokens.pieces.map((_, index) => (index ? [cutByK(index - 1, k), cutByP(index - 1, p)] : []));
      chart.replaceChildren(picture(`Surprisal of ${plural(LAST, "token")}; numbers in the table below`,
        barChart({ width: pageWidth, values, current: at + 1, name, crosses, rows: ["top-k", "top-p"], choose: (index) => select({ token: index - 1 }) })));
      updateNumbers();
      expected.replaceChildren(...expectation(at, isLast));
      const places = Array.from({ length: LAST }, (_, index) => index);
      const lost = (cut) => `${places.filter(cut).length} of ${LAST}`;
      const verdict = (cut) => (isLast ? "no next token" : cut ? "cut" : "kept");
      cuts.replaceChildren(element("h3", {}, "What sampling keeps after ", tokenName(at)), element("div", { class: "scroll whole", tabindex: 0, role: "region", "aria-label": "What sampling keeps" }, table(`What sampling keeps after ${plainName(at)}`, ["rule", "tokens kept", "probability", "true token", "cut in the text"], [
        [`top-k ${ks.at(k)}`, ks.at(k).toLocaleString("en"), percent(massOfK.at(k, at)), verdict(cutByK(at, k)), lost((index) => cutByK(index, k))],
        [`top-p ${number(ps.at(p), 2)}`, keptByP.at(p, at).toLocaleString("en"), `≥ ${percent(ps.at(p))}`, verdict(cutByP(at, p)), lost((index) => cutByP(index, p))],
      ])));
      byPosition.replaceChildren(lossByPosition());
    };

    function expectation(at, isLast) {
      const rows = Array.from(ids.row(at), (id, index) => ({
        cells: [`${index + 1}.`, [word(piece(id)), !isLast && id === data.loss.targets.at(at) ? " ✓" : ""], bar(probabilities.at(at, index), 1, probability(probabilities.at(at, index)))],
      }));
      const verdict = isLast
        ? `what follows is unknown; entropy ${number(entropy.at(at))} nats`
        : [word(target(at)), ` followed: probability ${probability(Math.exp(-nll.at(at)))}, surprisal ${number(nll.at(at), 4)} nats, rank ${rank.at(at).toLocaleString("en")}, entropy ${number(entropy.at(at))} nats`];
      return [element("h3", {}, "After ", tokenName(at)), table("The five most likely", ["", "token", "probability"], rows), element("p", { class: "readout" }, verdict)];
    }

    function lossByPosition() {
      const rows = [];
      for (let first = 1; first <= LAST; first *= 2) {
        const end = Math.min(2 * first - 1, LAST), part = nll.values.subarray(first - 1, end);
        rows.push([first === end ? `${first}` : `${first} to ${end}`, part.reduce((sum, value) => sum + value, 0) / part.length]);
      }
      const most = Math.max(...rows.map(([, mean]) => mean));
      return table("Loss by position", ["positions", "mean surprisal (nats)"], rows.map(([name, mean]) => [name, bar(mean, most, number(mean))]));
    }
  },
});
