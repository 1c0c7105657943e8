"use strict";
// What is selected. It stands in the URL's hash, so that a link shows what its sender saw; every view follows it.

const LIMITS = {
  get token() { return LENGTH; },
  layer: LAYERS,
  head: HEADS,
  get key() { return LENGTH; },
  dimension: data.hand.query.shape[1],
  k: data.loss.ks.shape[0],
  p: data.loss.ps.shape[0],
  frame: data.learning ? data.learning.steps.shape[0] : 1,
};
const PARTS = ["head", "attention", "MLP"]; // what is knocked out
const START = data.answer ? LAST : Math.floor(LENGTH / 2); // the fine-tuned head reads the last token
const state = {
  token: START,
  layer: data.hand.layer,
  head: data.hand.head,
  key: Math.max(START - 1, 0),
  dimension: 0,
  k: 3,
  p: 3,
  frame: data.learning ? data.learning.steps.shape[0] - 1 : 0,
  show: "weights",
  part: "head",
  view: "tokens",
};
const views = []; // {id, title, lead, build, isKept}: build(body) returns what redraws the view; a kept one is built once
const updates = [];

const view = (description) => views.push(description);

function select(changes) {
  for (const [name, value] of Object.entries(changes)) {
    if (name in LIMITS) state[name] = Math.min(Math.max(Math.trunc(value) || 0, 0), LIMITS[name] - 1);
    else if (name === "show") state.show = value === "scores" ? "scores" : "weights";
    else if (name === "part") state.part = PARTS.includes(value) ? value : "head";
    else if (name === "view" && views.some(({ id }) => id === value)) state.view = value;
  }
  state.key = Math.min(state.key, state.token); // a token sees no later one
  keepFocus(() => updates.forEach((update) => update(state)));
  writeHash();
}

// Where the element with the focus is redrawn, the control at the same place of its view gets the focus.
function keepFocus(draw) {
  const section = document.activeElement.closest("section");
  const controls = () => [...section.querySelectorAll("button, summary, [tabindex]")];
  const index = section ? controls().indexOf(document.activeElement) : -1;
  draw();
  if (index >= 0 && document.activeElement === document.body) controls()[index]?.focus({ preventScroll: true });
}

let waiting = 0;
function writeHash() {
  clearTimeout(waiting); // browsers refuse many changes of the URL in a short time, as of a key held down
  waiting = setTimeout(() => history.replaceState(null, "", `#${new URLSearchParams(state)}`), 150);
}

const readHash = () => select(Object.fromEntries(new URLSearchParams(location.hash.slice(1))));

// What the arrow keys move: [across, down] where an element says so with data-arrows, else the token, or with Shift head and layer.
function onArrow(event) {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!step || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input, textarea, select, summary")) return;
  const box = event.target.closest("[data-arrows]");
  const [across, down] = event.shiftKey ? ["head", "layer"] : box ? box.dataset.arrows.split(" ") : ["token"];
  const name = step[0] ? across : down;
  if (!(name in LIMITS)) return; // the page scrolls
  event.preventDefault();
  if (event.repeat && performance.now() - event.timeStamp > 100) return; // late: the key may have been released
  select({ [name]: state[name] + step[0] + step[1] });
}
