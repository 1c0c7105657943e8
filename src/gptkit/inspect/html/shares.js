"use strict";
// View 5: the logit of the next token as a sum of what every part of the model wrote.

view({
  id: "shares",
  title: "Who wrote this token",
  lead: "The logit of the next token is a sum: each head, each MLP, the embeddings and the biases (of all projections and layer norms together) wrote a share of it. Every layer norm's scale is held at the value it has here, which makes the sum exact.",
  build(body) {
    const { heads, mlps, token: tokens, position: positions, bias, logit } = data.shares;
    const title = element("h3", {}), most = element("div", {}), byLayer = element("div", {}), check = element("p", { class: "readout" });
    const [numbers, updateNumbers] = numbersOf("Table of all heads and MLPs", () => table(`Shares of the logit of ${target(state.token)}`,
      ["layer", ...Array.from({ length: HEADS }, (_, head) => `head ${head}`), "MLP"],
      Array.from({ length: LAYERS }, (_, layer) => ({
        cells: [String(layer), ...Array.from({ length: HEADS }, (_, head) => number(heads.at(layer, head, state.token))), number(mlps.at(layer, state.token))],
        current: layer === state.layer,
      }))));
    body.append(title, check, element("div", { class: "columns" }, most, byLayer), numbers);
    const total = (parts) => parts.reduce((sum, { share }) => sum + share, 0);

    function partsOf(at) {
      const parts = [{ name: "token embedding", share: tokens.at(at) }, { name: "position embedding", share: positions.at(at) }];
      for (let layer = 0; layer < LAYERS; layer++) {
        for (let head = 0; head < HEADS; head++) parts.push({ name: `head ${layer}.${head}`, layer, head, share: heads.at(layer, head, at) });
        parts.push({ name: `MLP ${layer}`, layer, share: mlps.at(layer, at) });
      }
      return [...parts, { name: "biases", share: bias.at(at) }];
    }
    const line = (scale, now) => ({ name, share, layer, head, kind }) => ({
      cells: [name, bar(share, scale, signed(share), true)],
      kind,
      current: layer === now.layer && (head === undefined || head === now.head) && !kind,
      choose: layer === undefined ? undefined : () => select(head === undefined ? { layer } : { layer, head }),
    });

    return (now) => {
      const at = now.token, parts = partsOf(at);
      const sorted = [...parts].sort((one, other) => Math.abs(other.share) - Math.abs(one.share));
      const largest = sorted.slice(0, 12), rest = { name: `${plural(parts.length - largest.length, "other part")}`, share: total(sorted.slice(12)), kind: "aside" };
      const layers = [parts[0], parts[1], ...Array.from({ length: LAYERS }, (_, layer) => [
        { name: `layer ${layer}: heads`, layer, share: total(parts.filter((part) => part.layer === layer && part.head !== undefined)) },
        { name: `layer ${layer}: MLP`, layer, share: mlps.at(layer, at) }]).flat(), parts.at(-1)];
      const scale = (list) => Math.max(...list.map(({ share }) => Math.abs(share)));
      title.replaceChildren(at === LAST ? "The most likely token " : "The next token ", word(target(at)), " after ", ...tokenName(at));
      check.textContent = `shares add up to ${number(total(parts))}; the model's logit is ${number(logit.at(at))}`;
      most.replaceChildren(table("The largest shares", ["part", "share of the logit"], [...largest, rest].map(line(scale([...largest, rest]), now))));
      byLayer.replaceChildren(table("By layer", ["part", "share of the logit"], layers.map(line(scale(layers), { layer: now.layer }))));
      updateNumbers();
    };
  },
});
