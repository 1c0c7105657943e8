"use strict";
// View 2: every head at a glance, one head large, and the row of the chosen token as a table.

const MOST_NAMES = 40; // tokens written beside the large head
const INITIALS = Object.fromEntries(data.heads.types.map((type) => [type, type[0].toUpperCase()]));

view({
  id: "attention",
  title: "Attention",
  lead: "Each head lets every token look at itself and the tokens before it. A row is the token that looks, a column the token looked at; the upper half is masked, since a token must not see what it is to predict.",
  build(body) {
    const [grid, drawGrid] = headGrid();
    const [large, drawLarge] = largeHead();
    const [row, drawRow] = attentionRow();
    body.append(element("div", { class: "columns" }, grid, large), row,
      element("p", { class: "note" }, data.isLive ? "Weights and scores are those that the copy computed." : `Weights and scores are rounded to 8 bits here, weights by at most ${data.attention.error.toFixed(4)}; the exact ones are in the .safetensors file beside this page.`));
    return (now) => [drawGrid, drawLarge, drawRow].forEach((draw) => draw(now));
  },
});

function headGrid() {
  const size = Math.min(LENGTH, 48);
  const typeOf = Object.fromEntries(data.heads.named.map(([layer, head, type]) => [`${layer}.${head}`, type]));
  const cells = Array.from({ length: LAYERS }, (_, layer) => Array.from({ length: HEADS }, (_, head) => {
    const canvas = element("canvas", { width: size, height: size });
    paint(canvas, layer, head, "weights");
    const type = typeOf[`${layer}.${head}`];
    const label = `layer ${layer}, head ${head}${type ? `: ${type}` : ""}`;
    return element("button", { type: "button", class: "thumb", tabindex: -1, title: label, "aria-label": label, onclick: () => select({ layer, head }) },
      canvas, type ? element("span", { class: "badge", "aria-hidden": "true" }, INITIALS[type]) : []);
  }));
  const grid = element("div", { class: "grid", role: "group", "aria-label": "All heads: layers downwards, heads across", "data-arrows": "head layer" },
    cells.map((row, layer) => [element("span", { class: "axis" }, String(layer)), row]),
    element("span", { class: "axis" }), Array.from({ length: HEADS }, (_, head) => element("span", { class: "axis" }, String(head))));
  grid.style.gridTemplateColumns = `max-content repeat(${HEADS}, minmax(0, 4.5rem))`;
  const [numbers] = numbersOf("Table of all heads and their types", () => table("Mean attention over random tokens, repeated",
    ["head", ...data.heads.types], cells.flatMap((row, layer) => row.map((_, head) => ({
      cells: [`${layer}.${head}`, ...[...data.heads.scores.row(layer, head)].map((score) => number(score))],
      choose: () => select({ layer, head }),
    })))));
  const node = element("div", {}, element("h3", {}, "All heads"), element("p", { class: "note" }, "Layers downwards, heads across; the more ink, the more attention."), grid, namedHeads(),
    element("p", { class: "note" }, "A head is named where its mean attention, over random tokens written twice, is 0.4 or more."), numbers);
  let chosen = cells[0][0];
  return [node, ({ layer, head }) => {
    chosen.removeAttribute("aria-current");
    chosen.tabIndex = -1;
    chosen = cells[layer][head];
    chosen.setAttribute("aria-current", "true");
    chosen.tabIndex = 0;
    if (grid.contains(document.activeElement)) chosen.focus({ preventScroll: true });
  }];
}

function namedHeads() {
  const meaning = {
    "previous-token": "look at the token before",
    "first-token": "look at the first token, often when nothing else matches",
    induction: "look at what followed the same token earlier, and so can repeat it",
  };
  return element("dl", { class: "named" }, data.heads.types.map((type) => {
    const found = data.heads.named.filter(([, , its]) => its === type).sort((one, other) => other[3] - one[3]);
    const buttons = found.slice(0, 8).map(([layer, head, , score]) =>
      element("button", { type: "button", onclick: () => select({ layer, head }) }, `${layer}.${head}`, element("small", {}, ` ${number(score, 2)}`)));
    const rest = found.length > 8 ? ` and ${found.length - 8} more` : "";
    return [element("dt", {}, element("span", { class: "badge" }, INITIALS[type]), ` ${type}: `, element("small", {}, meaning[type] ?? "")),
      element("dd", {}, found.length ? [buttons, rest] : "no head scores 0.4 or more")];
  }));
}

// One ink, more of it for larger numbers: weights by their square root, scores from the head's lowest to its highest.
function paint(canvas, layer, head, show) {
  const size = canvas.width, image = new ImageData(size, size), ink = new Float32Array(size * size);
  let low = Infinity, high = -Infinity;
  const rows = Array.from({ length: LENGTH }, (_, query) => attention(layer, head, query));
  const value = (query, key) => (show === "weights" ? Math.sqrt(rows[query].weight(key)) : rows[query].score(key));
  if (show === "scores") rows.forEach((row, query) => {
    for (let key = 0; key <= query; key++) [low, high] = [Math.min(low, row.score(key)), Math.max(high, row.score(key))];
  }); else [low, high] = [0, 1];
  for (let query = 0; query < LENGTH; query++) {
    const y = Math.floor((query * size) / LENGTH);
    for (let key = 0; key <= query; key++) {
      const at = y * size + Math.floor((key * size) / LENGTH); // where cells share a pixel, the largest shows
      ink[at] = Math.max(ink[at], (value(query, key) - low) / (high - low || 1));
    }
  }
  ink.forEach((share, index) => image.data.set([37, 108, 219, 255 * share], 4 * index));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function largeHead() {
  const canvas = element("canvas", { width: LENGTH, height: LENGTH });
  const masked = element("span", { class: "masked" }), row = element("span", { class: "rowmark" }), cell = element("span", { class: "cellmark" });
  const note = element("span", { class: "future" }, "masked: the future");
  masked.style.clipPath = `polygon(${staircase(LENGTH)})`;
  const frame = element("div", { class: "large", role: "img", onclick: choose, "data-arrows": "key token", tabindex: 0 }, canvas, masked, note, row, cell);
  const names = (axis) => element("div", { class: axis, "aria-hidden": "true" }, LENGTH > MOST_NAMES ? [] : data.tokens.pieces.map(word));
  const labelled = element("div", { class: "labelled" }, names("across"), names("down"), frame);
  const title = element("h3", {}), readout = element("p", { class: "readout" });
  const [shown, updateShown] = choices("What the picture shows", [["weights", "weights"], ["scores", "scores before softmax"]], (show) => select({ show }));

  function choose(event) {
    const box = frame.getBoundingClientRect();
    const token = Math.min(Math.floor(((event.clientY - box.top) * LENGTH) / box.height), LAST);
    select({ token, key: Math.floor(((event.clientX - box.left) * LENGTH) / box.width) });
  }

  let painted = "";
  return [element("div", {}, title, shown, readout, labelled), ({ token, key, layer, head, show }) => {
    if (painted !== (painted = `${layer}.${head} ${show}`)) paint(canvas, layer, head, show);
    updateShown(show);
    title.textContent = `Layer ${layer}, head ${head}`;
    frame.setAttribute("aria-label", `Attention of layer ${layer}, head ${head}; the table below has the row of ${plainName(token)}`);
    [row.style.top, row.style.height, row.style.width] = [token / LENGTH, 1 / LENGTH, (token + 1) / LENGTH].map((part) => `${100 * part}%`);
    [cell.style.top, cell.style.left, cell.style.width, cell.style.height] = [token / LENGTH, key / LENGTH, 1 / LENGTH, 1 / LENGTH].map((part) => `${100 * part}%`);
    const chosen = attention(layer, head, token);
    readout.replaceChildren(...tokenName(token), " looks at ", ...tokenName(key), `: weight ${number(chosen.weight(key))}, score ${number(chosen.score(key), 2)}`);
  }];
}

// The corners of the cells above the diagonal, as a polygon.
function staircase(length) {
  const points = [[1 / length, 0], [1, 0], [1, 1 - 1 / length]];
  for (let row = length - 1; row > 0; row--) points.push([row / length, row / length], [row / length, (row - 1) / length]);
  return points.map((point) => point.map((part) => `${100 * part}%`).join(" ")).join(",");
}

function attentionRow() {
  const title = element("h3", {}), box = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Attention of the chosen token", "data-arrows": "none key" });
  return [element("div", {}, title, box), ({ token, key: chosenKey, layer, head }) => {
    const row = attention(layer, head, token);
    const most = Math.max(...Array.from({ length: token + 1 }, (_, key) => row.weight(key)));
    const rows = Array.from({ length: token + 1 }, (_, key) => ({
      cells: [String(key), word(data.tokens.pieces[key]), number(row.score(key), 2), bar(row.weight(key), most, number(row.weight(key)))],
      current: key === chosenKey,
      choose: () => select({ key }),
    }));
    const later = LAST - token;
    if (later) rows.push({ cells: [later > 1 ? `${token + 1} to ${LAST}` : String(LAST), `${plural(later, "later token")}`, "masked", "0"], kind: "aside" });
    title.replaceChildren("Where ", ...tokenName(token), " looks");
    box.replaceChildren(table(`Attention of ${plainName(token)} in layer ${layer}, head ${head}`, ["position", "token", "score", "weight"], rows));
    scrollTo(box.querySelector("[aria-current]"), box);
  }];
}
