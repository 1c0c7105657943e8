"use strict";
// Views 3 to 5: one unit and one direction by label, along texts, and texts written while the unit is held.

const shown = (value) => (Math.abs(value) < 0.001 && value !== 0 ? value.toExponential(1) : number(value, 3));
const told = (reader) => ["it sets ", word(data.labels[reader.label]), " apart best"];

view({
  id: "values",
  title: "One unit, one direction",
  lead: `Values after the last token of each text of ${data.split}, by label: of the MLP unit that is most accurate alone, and of the direction that the best fit reads.`,
  build(body) {
    body.append(element("div", { class: "columns" }, data.readers.map((reader) => element("div", {},
      element("h3", {}, reader.title), element("p", { class: "note" }, told(reader)), histogram(reader)))));
    return () => {};
  },
});

view({
  id: "texts",
  title: "Along a text",
  lead: "The value after every token, with all before it read. A bar upwards, and blue, is above the median of the texts' last tokens; a bar downwards, and orange, below.",
  build(body) {
    const [buttons, press] = choices("What to show", data.readers.map((reader, index) => [index, reader.title]), (reader) => select({ reader }));
    const box = element("div");
    body.append(buttons, box);
    return (now) => {
      press(now.reader);
      box.replaceChildren(...data.texts.map((text) => readText(text, data.readers[now.reader], text.values[now.reader])));
    };
  },
});

view({
  id: "held",
  title: "The unit held",
  lead: `Texts from the model with unit ${data.unit} held at one value at every position: its lowest, median and highest at the last tokens of train. The random numbers are the same.`,
  build(body) {
    body.append(element("div", { class: "held" }, data.samples.map((sample) => element("div", {},
      element("h3", {}, `held at ${shown(sample.value)}`), element("p", { class: "note" }, element("code", {}, `gptkit generate --steer ${sample.steer} --model ${data.model}`)),
      sample.texts.map((text) => element("p", { class: "sample" }, word(text)))))));
    return () => {};
  },
});

// A row of bars for each label, over the same bins; heights are shares of the label's examples.
function histogram({ title, edges, counts }) {
  const width = 440, line = 34, left = 4, top = 4;
  const totals = counts.map((own) => own.reduce((sum, count) => sum + count, 0));
  const most = Math.max(...counts.flatMap((own, label) => own.map((count) => count / Math.max(totals[label], 1))), 1e-9);
  const step = (width - 2 * left) / (edges.length - 1), height = top + line * counts.length + 20;
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", "aria-hidden": "true" });
  counts.forEach((own, label) => {
    const base = top + line * (label + 1) - 4;
    chart.append(svg("line", { x1: left, x2: width - left, y1: base, y2: base, class: "rule" }));
    own.forEach((count, bin) => {
      const tall = ((line - 8) * count) / Math.max(totals[label], 1) / most;
      if (count) chart.append(svg("rect", { x: left + bin * step, y: base - tall, width: step * 0.9, height: tall, class: "column" }));
    });
    chart.append(svg("text", { x: width - left, y: base - line + 16, class: "end name" }, `${data.labels[label]} (${totals[label]})`));
  });
  chart.append(svg("text", { x: left, y: height - 4 }, shown(edges[0])), svg("text", { x: width - left, y: height - 4, class: "end" }, shown(edges.at(-1))));
  const [numbers] = numbersOf("the numbers", () => table(title, ["from", ...data.labels], edges.slice(0, -1).map((edge, bin) =>
    [shown(edge), ...counts.map((own) => String(own[bin]))])));
  return element("div", {}, picture(`${title} by label`, chart), numbers);
}

function readText({ label, pieces }, { low, middle, high }, values) {
  const tokens = pieces.slice(1).map((text, index) => {
    const value = values[index + 1], above = value >= middle;
    const part = Math.min(Math.abs(value - middle) / (Math.max(above ? high - middle : middle - low, 1e-9)), 1);
    const level = element("span", { class: above ? "up" : "down" });
    level.style.height = `${Math.round(100 * part)}%`;
    const token = element("span", { class: above ? "read above" : "read below", title: shown(value) }, element("span", { class: "gauge two" }, level), word(text));
    token.style.setProperty("--share", `${Math.round(70 * part)}%`);
    return token;
  });
  const last = values.at(-1);
  return element("div", { class: "text" }, element("h3", {}, word(data.labels[label]), ` · last value ${shown(last)}`), element("p", { class: "tokens" }, tokens));
}
