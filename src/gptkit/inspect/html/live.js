"use strict";
// View 10: the model itself, in 8 bits, run by the browser on whatever is typed.

const CONTINUATION = 20; // tokens of one continuation
const SLICE = 25; // milliseconds of computing before the browser may draw

view({
  id: "live",
  title: "Live",
  isKept: true,
  lead: data.live.obstacle ? "" : "A copy of the model, with its matrices in 8 bits, runs in this page. Change the text, let it go on, or switch a head off: the views above then show what the copy computes.",
  build(body) {
    if (data.live.obstacle) {
      body.append(element("p", { class: "note" }, `No live model: ${data.live.obstacle}.`));
      return () => {};
    }
    const whole = data, model = liveModel(data.live), tokenizer = liveTokenizer(data.live.tokenizer);
    const most = Math.min(model.n_positions, Math.max(LENGTH, 128)), off = new Set();
    const rows = [], settings = { temperature: 1, topK: 0 }, spent = { time: 0, tokens: 0 };
    let pause = 0; // when the browser may draw next
    let text = data.live.text, ids = Array.from(data.tokens.ids.values), run = 0, continuation = 0; // each change starts a run

    const area = element("textarea", { rows: 3, "aria-label": "Text of the live model", spellcheck: false, oninput: () => read(area.value) });
    area.value = text;
    const status = element("p", { class: "readout", "aria-live": "polite" }), next = element("div", {});
    const go = element("button", { type: "button", onclick: () => continueText(CONTINUATION) }, `Continue by ${CONTINUATION} tokens`);
    const actions = element("div", { class: "choices" },
      element("button", { type: "button", onclick: () => continueText(1) }, "Next token"), go,
      element("button", { type: "button", onclick: () => continuation === run && show() }, "Stop"),
      element("button", { type: "button", onclick: reset }, "Back to the page's text"));
    const heads = element("table", { class: "switches" }, element("caption", {}, "Heads"), element("tbody", {},
      upTo(LAYERS).map((layer) => element("tr", {}, element("th", { scope: "row" }, `layer ${layer}`),
        upTo(HEADS).map((head) => element("td", {}, element("button", { type: "button", "aria-pressed": "true", onclick: (event) => toggle(event.target, `${layer}.${head}`) }, `${layer}.${head}`)))))));
    body.append(area, actions, status,
      element("div", { class: "columns" },
        element("div", {}, slider("temperature", { min: 0, max: 2, step: 0.05 }, (value) => number(value, 2)), slider("topK", { min: 0, max: 50, step: 1 }, (value) => (value ? String(value) : "off")), next),
        element("div", {}, element("p", { class: "note" }, "Heads: press one to switch it off; it then writes nothing."),
          element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Heads" }, heads))));
    status.textContent = "The views show the model itself, in fp32, until something here is changed.";

    function slider(name, range, shown) {
      const label = name === "topK" ? "top-k" : name, value = element("output", {}, shown(settings[name]));
      return element("label", { class: "slider" }, `${label} `, element("input", { type: "range", ...range, value: settings[name], "aria-label": label, oninput: (event) => {
        settings[name] = Number(event.target.value);
        value.textContent = shown(settings[name]);
        if (rows.length) drawNext();
        else show();
      } }), " ", value);
    }

    function read(given) {
      text = given;
      ids = [tokenizer.separator, ...tokenizer.encode(given)].slice(0, most);
      show();
    }

    function toggle(button, name) {
      off.has(name) ? off.delete(name) : off.add(name);
      button.setAttribute("aria-pressed", String(!off.has(name)));
      rows.length = 0;
      show();
    }

    // Computes the rows that are missing; false if something was changed meanwhile.
    async function compute(mine, known = rows, without = off) {
      const common = known.findIndex(({ id }, at) => id !== ids[at]);
      if (common >= 0) known.length = common;
      known.length = Math.min(known.length, ids.length);
      while (known.length < ids.length) {
        const start = performance.now();
        nextRow(model, known, ids[known.length], without);
        spent.time += performance.now() - start;
        spent.tokens += 1;
        if (performance.now() < pause) continue;
        await new Promise((done) => setTimeout(done));
        if (mine !== run) return false;
        pause = performance.now() + SLICE;
      }
      return true;
    }

    // The view of the knock-out takes as many runs as there are parts, and so follows when all else is shown.
    async function knockOut(mine) {
      const targets = Array.from(data.loss.targets.values), nll = [];
      for (const layer of upTo(LAYERS)) for (const part of [...upTo(HEADS).map((head) => `${layer}.${head}`), `attention ${layer}`, `MLP ${layer}`]) {
        const without = [];
        if (!(await compute(mine, without, new Set([...off, part])))) return;
        nll.push(surprisals(without, targets));
      }
      data.knock_out = knockOutOf(model, surprisals(rows, targets), nll);
      rebuildView("knock-out");
    }

    async function show(ending = "") {
      const mine = ++run;
      if (!(await compute(mine))) return;
      drawNext();
      rebuild(inspectionOf(model, tokenizer, rows, text, off, whole));
      const cut = ids.length === most ? `; the model here reads at most ${most} tokens, the first of the text` : "";
      status.textContent = `The views show the copy in 8 bits${off.size ? ` without ${plural(off.size, "head")}` : ""}`
        + (spent.tokens ? `; this browser takes ${number(spent.time / spent.tokens, 1)} ms a token` : "") + cut + ending;
      await knockOut(mine);
    }

    function reset() {
      run += 1;
      [text, ids] = [whole.live.text, Array.from(whole.tokens.ids.values)];
      area.value = text;
      off.clear();
      rows.length = 0;
      heads.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", "true"));
      next.replaceChildren();
      rebuild(whole);
      status.textContent = "The views show the model itself, in fp32.";
    }

    async function continueText(count) {
      const mine = continuation = ++run;
      for (let step = 0; step < count && ids.length < most; step++) {
        if (!(await compute(mine))) return;
        const id = drawn(chances(rows.at(-1).logits, settings));
        if (id === tokenizer.separator) return show("; it ended the text here");
        append(id);
        await new Promise((done) => setTimeout(done));
        if (mine !== run) return;
      }
      show();
    }

    function append(id) {
      ids = [...ids, id];
      area.value = text = tokenizer.decode(ids.slice(1));
    }

    function drawNext() {
      const { logits } = rows.at(-1), plain = softmax(logits).weights, kept = chances(logits, settings);
      next.replaceChildren(table("The ten likeliest next tokens", ["token", "probability", "when drawn"], likeliest(logits, 10).map((id) => ({
        cells: [word(tokenizer.shown[id]), probability(plain[id]), bar(kept[id], 1, kept[id] ? probability(kept[id]) : "cut")],
        choose: () => {
          if (ids.length < most) append(id);
          show();
        },
      }))));
    }
    return () => {};
  },
});

// The probabilities from which a token is drawn: of the k likeliest, at a temperature; at 0 the likeliest is certain.
function chances(logits, { temperature, topK }) {
  const count = temperature === 0 ? 1 : topK || logits.length;
  const least = count < logits.length ? logits[likeliest(logits, count).at(-1)] : -Infinity;
  return softmax(Float64Array.from(logits, (value) => (value < least ? -Infinity : value / (temperature || 1)))).weights;
}

function drawn(weights) {
  let left = Math.random();
  const found = weights.findIndex((weight) => (left -= weight) < 0);
  return found < 0 ? largest(weights) : found;
}
