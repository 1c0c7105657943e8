"use strict";
// Builds the page: its head, the bar with the links and the tokens, and the views in their order.

function buildHead() {
  const total = data.loss.nll.values.subarray(0, LAST).reduce((sum, value) => sum + value, 0);
  const mean = LAST ? total / LAST : 0;
  const order = data.family === "GPT-1" ? "layer norms after each sublayer" : "layer norms before each sublayer";
  document.title = `Inside ${data.model} - gptkit inspect`;
  document.getElementById("head").replaceChildren(...[
    element("h1", {}, "Inside ", element("bdi", {}, data.model)),
    element("p", { class: "facts" },
      `${data.family} (${order}) · ${plural(LAYERS, "layer")} × ${plural(HEADS, "head")} · ${plural(LENGTH, "token")}`
      + (LAST ? ` · surprisal ${number(total, 2)} nats, ${number(mean, 3)} a token · perplexity ${number(Math.exp(mean), 2)}` : "")),
    element("dl", { class: "fields" }, data.fields.map(([name, text]) => [element("dt", {}, name), element("dd", {}, word(text))])),
    data.answer ? buildAnswer(data.answer) : [],
    element("p", { class: "keys" }, "Click anything, or: ", element("kbd", {}, "←"), " ", element("kbd", {}, "→"), " token, ",
      element("kbd", {}, "Shift"), " + ", element("kbd", {}, "↑"), " ", element("kbd", {}, "↓"), " layer, ",
      element("kbd", {}, "Shift"), " + ", element("kbd", {}, "←"), " ", element("kbd", {}, "→"), " head. All views follow. ",
      "The bar above a token is its surprisal; the dashed token is the next one, whose prediction the views explain."),
  ].flat());
}

function buildAnswer(answer) {
  const isScore = answer.length === 1, most = Math.max(...answer.map(([, value]) => value));
  const answers = table("What the fine-tuned head answers", ["label", isScore ? "value" : "probability"], answer.map(([label, value]) => ({
    cells: [word(label), isScore ? number(value, 4) : bar(value, 1, number(value, 4))],
    current: !isScore && value === most,
  })), "answer");
  return [answers, element("p", { class: "note" }, `The head of its own that answers reads the last token, `, word(data.tokens.pieces[LAST]),
    `. The views show the language model before it; the next token that they explain is not the label.`)];
}

function buildBar() {
  const links = views.map(({ id, title }, index) => element("a", { href: `#view=${id}`, onclick: (event) => {
    event.preventDefault();
    select({ view: id });
    document.getElementById(id).scrollIntoView();
  } }, `${index + 1} ${title}`));
  const most = Math.max(...data.loss.nll.values, 1);
  const tokens = data.tokens.pieces.map((text, position) => {
    const surprisal = position ? data.loss.nll.at(position - 1) : null;
    const level = element("span", { class: "level" });
    level.style.height = `${surprisal === null ? 0 : (100 * surprisal) / most}%`;
    return element("button", {
      type: "button", tabindex: -1, onclick: () => select({ token: position }),
      title: surprisal === null ? `token 0: nothing before it predicts it` : `token ${position}: surprisal ${number(surprisal, 2)} nats`,
    }, element("span", { class: "gauge" }, level), word(text));
  });
  const strip = element("div", { class: "strip", role: "group", "aria-label": "Tokens; bars show their surprisal", "data-arrows": "token" }, tokens);
  const where = element("p", { class: "where", "aria-live": "polite" });
  document.getElementById("nav").replaceChildren(element("div", { class: "links" }, links), strip, where);
  let before = 0;
  updates.push(({ token, layer, head, view: id }) => {
    tokens[before].removeAttribute("aria-current");
    tokens[before].tabIndex = -1;
    if (before < LAST) tokens[before + 1].classList.remove("next");
    tokens[token].setAttribute("aria-current", "true");
    tokens[token].tabIndex = 0;
    if (token < LAST) tokens[token + 1].classList.add("next");
    if (strip.contains(document.activeElement)) tokens[token].focus({ preventScroll: true });
    strip.scrollLeft = tokens[token].offsetLeft - strip.clientWidth / 2;
    before = token;
    links.forEach((link, index) => views[index].id === id ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
    where.replaceChildren("token ", ...tokenName(token), ` · layer ${layer} · head ${head}`);
  });
}

function buildViews() {
  views.forEach((view) => {
    if (!view.isKept || !document.getElementById(view.id)) buildView(view);
    updates.push((now) => view.update(now));
  });
}

function buildView(view) {
  const { id, title, lead, build } = view, before = document.getElementById(id);
  const body = element("section", { id, "aria-labelledby": `${id}-title` },
    element("h2", { id: `${id}-title` }, element("span", { class: "count" }, String(views.indexOf(view) + 1)), title), element("p", { class: "lead" }, lead));
  before ? before.replaceWith(body) : document.getElementById("views").append(body);
  view.update = build(body);
}

function rebuildView(id) {
  buildView(views.find((view) => view.id === id));
  select({});
}

// Builds everything anew for other numbers.
function rebuild(given) {
  setData(given);
  updates.length = 0;
  keepFocus(() => {
    buildHead();
    buildBar();
    buildViews();
  });
  select({ token: state.token, key: state.key }); // the text may be shorter now
}

buildHead();
buildBar();
buildViews();
measure();
readHash();
if (location.hash.includes("view=")) document.getElementById(state.view).scrollIntoView();
document.addEventListener("keydown", onArrow);
addEventListener("resize", () => pageWidth !== measure() && select({})); // charts are as wide as the page
addEventListener("hashchange", () => {
  readHash();
  document.getElementById(state.view).scrollIntoView();
});
