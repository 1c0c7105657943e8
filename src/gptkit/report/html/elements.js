"use strict";
// Building blocks of the views. Text from the model or the user only ever becomes a text node.

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity));
  return node;
}

const element = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

const number = (value, digits = 3) => {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text; // no -0.000
};
const signed = (value, digits = 3) => (value < 0 ? "" : "+") + number(value, digits);
const percent = (share) => (share < 0.0005 ? "<0.1%" : `${number(100 * share, share < 0.0995 ? 1 : 0)}%`);
const probability = (share) => (share >= 0.0001 || share === 0 ? number(share, 4) : share.toExponential(1));
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const upTo = (count) => Array.from({ length: count }, (_, index) => index);

const word = (text) => element("bdi", { class: "piece" }, text);
const tokenName = (position) => [word(data.tokens.pieces[position]), ` (${position})`];
const plainName = (position) => `${data.tokens.pieces[position]} (${position})`; // where only text can stand

// A number with a bar as long as its part of `most`; if `signed`, to the left or right of the middle.
function bar(value, most, text, signed = false) {
  const part = most > 0 ? Math.min(Math.abs(value) / most, 1) * (signed ? 50 : 100) : 0;
  const ink = element("span", { class: signed ? (value < 0 ? "ink minus" : "ink plus") : "ink" });
  ink.style.width = `${part}%`;
  return element("span", { class: signed ? "bar signed" : "bar" }, element("span", { class: "track" }, ink), text);
}

// `rows` are arrays of cells, or {cells, current, choose}: the row of the selection, and what a click selects.
function table(caption, columns, rows, name = "") {
  const firstRow = rows.length ? rows[0].cells ?? rows[0] : [];
  const head = element("tr", {}, columns.map((column, index) => {
    const isText = index === 0 || [firstRow[index]].flat().some((part) => part instanceof HTMLElement && part.matches(".piece"));
    return element("th", { scope: "col", class: isText && "words" }, column);
  }));
  const body = rows.map((row) => {
    const { cells, current = false, choose, kind = "" } = Array.isArray(row) ? { cells: row } : row;
    const attributes = { "aria-current": current && "true", class: `${kind}${choose ? " choice" : ""}`.trim() || undefined };
    if (choose) attributes.onclick = choose; // by keyboard, the arrows select
    const [first, ...others] = cells;
    return element("tr", attributes, element("th", { scope: "row" }, first), others.map((cell) => element("td", {}, cell)));
  });
  return element("table", { class: name || undefined },
    element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, body));
}

// The table behind a picture, made when it is opened; returns [node, update].
function numbersOf(title, makeTable) {
  const box = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title, "data-arrows": "none none" });
  const details = element("details", {}, element("summary", {}, title), box);
  const update = () => details.open && box.replaceChildren(makeTable());
  details.addEventListener("toggle", update);
  return [details, update];
}

function scrollTo(row, box) {
  if (!row) return;
  const above = row.offsetTop - box.scrollTop, bottom = above + row.offsetHeight;
  if (above < 40 || bottom > box.clientHeight) box.scrollTop = row.offsetTop - box.clientHeight / 2;
}

function choices(label, options, choose) {
  const buttons = options.map(([value, text]) =>
    element("button", { type: "button", onclick: () => choose(value), "data-value": value }, text));
  const node = element("div", { class: "choices", role: "group", "aria-label": label }, buttons);
  const update = (value) => buttons.forEach((button) =>
    button.setAttribute("aria-pressed", String(button.dataset.value === String(value))));
  return [node, update];
}
