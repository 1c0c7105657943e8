"use strict";
// View 1: what the model reads. Ids and pieces, and the sum of two vectors that enters the first layer.

view({
  id: "tokens",
  title: "Tokens",
  lead: "The text as the model reads it: pieces of its vocabulary, each a row of the embedding matrix, to which the row of its position is added.",
  build(body) {
    const { token_embedding: tokens, position_embedding: positions } = data.tokens;
    const width = tokens.shape[1], first = Math.min(8, width);
    const list = element("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": "Tokens", "data-arrows": "none token" });
    const sum = element("div", {});
    const norm = (vector) => Math.hypot(...vector);
    const vectorsOf = (token) => {
      const sums = tokens.row(token).map((value, index) => value + positions.at(token, index));
      return [["token", tokens.row(token)], ["+ position", positions.row(token)], ["= input", sums]];
    };
    const [numbers, updateNumbers] = numbersOf("Table of all dimensions", () => table(`Embeddings of ${plainName(state.token)}`,
      ["dimension", "token", "position", "input"],
      Array.from({ length: width }, (_, index) => [`[${index}]`, ...vectorsOf(state.token).map(([, vector]) => number(vector[index]))])));
    const rows = data.tokens.pieces.map((text, position) => ({
      cells: [String(position), word(text), String(data.tokens.ids.at(position))],
      choose: () => select({ token: position }),
    }));
    const made = table("Tokens", ["position", "piece", "id"], rows);
    list.append(made);
    body.append(element("div", { class: "columns narrow-wide" }, list, element("div", {}, sum, numbers)));
    let before = 0;

    return ({ token }) => {
      made.tBodies[0].rows[before].removeAttribute("aria-current");
      made.tBodies[0].rows[token].setAttribute("aria-current", "true");
      scrollTo(made.tBodies[0].rows[token], list);
      before = token;
      const vectors = vectorsOf(token);
      const most = Math.max(...vectors.flatMap(([, vector]) => [...vector].map(Math.abs)));
      const columns = ["", ...Array.from({ length: first }, (_, index) => `[${index}]`), "norm"];
      sum.replaceChildren(
        element("h3", {}, "Input of the first layer: ", tokenName(token)),
        ...vectors.map(([name, vector]) => element("div", { class: "vector" }, element("span", {}, name),
          spikes(`${name}: ${width} numbers, norm ${number(norm(vector))}`, vector, most))),
        element("p", { class: "note" }, `Each line is one of ${width} dimensions, up if positive; all three on the same scale (±${number(most, 2)}). The first ${first} as numbers:`),
        element("div", { class: "scroll" }, table(`Embeddings of ${plainName(token)}`, columns,
          vectors.map(([name, vector]) => [name, ...[...vector.subarray(0, first)].map((value) => number(value)), number(norm(vector))]))),
      );
      updateNumbers();
    };
  },
});

// A vector as thin lines up and down from a middle line.
function spikes(label, vector, most) {
  const path = Array.from(vector, (value, index) => `M${index + 0.5} 0V${number((-20 * value) / (most || 1), 2)}`).join("");
  return picture(label, svg("svg", { viewBox: `0 -21 ${vector.length} 42`, preserveAspectRatio: "none", class: "spikes", "aria-hidden": "true" },
    svg("path", { d: `M0 0H${vector.length}`, class: "rule" }), svg("path", { d: path, class: "spike" })));
}
