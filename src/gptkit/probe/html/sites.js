"use strict";
// Views 1 and 2: accuracy by layer and site, and by the number of units of the chosen site.

const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.layers;
const state = { row: rows.findIndex((row) => row.layer === data.best.layer && row.site === data.best.site), reader: 0 };
const SITES = { residual: "residual stream", mlp: "MLP units" };
const MARKS = { residual: "dot", mlp: "ring" };
const views = []; // {id, title, lead, build}: build(body) returns what redraws the view
const updates = [];

const view = (description) => views.push(description);
const share = (value) => `${number(100 * value, 1)}%`;
const siteName = (row) => `layer ${row.layer}, ${SITES[row.site]}`;
const range = (ends) => (ends ? `${share(ends[0])} to ${share(ends[1])}` : "n/a");

function select(changes) {
  Object.assign(state, changes);
  updates.forEach((update) => update(state));
}

view({
  id: "layers",
  title: "What each layer knows",
  lead: `Logistic regression with an L1 penalty reads the label off the frozen states at each text's last token, once for each layer and site. Accuracy is on ${data.split}; whiskers and intervals are 95%. The control is the same fit on shuffled labels; chance, always the most frequent label, is ${share(data.chance)}.`,
  build(body) {
    const chart = element("div");
    const box = element("div", { class: "scroll whole", tabindex: 0, role: "region", "aria-label": "Accuracy by layer and site" });
    body.append(legend(), chart, box);
    return (now) => {
      chart.replaceChildren(layerChart(now.row));
      box.replaceChildren(layerTable(now.row));
    };
  },
});

view({
  id: "units",
  title: "How many units it takes",
  lead: `The fit is repeated, with the weakest penalty, on the 1, 2, 4, … units of largest weight alone. Accuracy here is on ${data.chosen_on}, which also chose the strength of the penalty.`,
  build(body) {
    const title = element("h3"), chart = element("div"), box = element("div", { class: "columns" });
    body.append(title, chart, box);
    return (now) => {
      const row = rows[now.row], steps = row.by_units;
      title.replaceChildren(siteName(row));
      chart.replaceChildren(...(steps.length ? [accuracyChart([{ mark: "dot", points: steps.map((step, x) => ({ x, ...step })) }],
        steps.map((step) => String(step.units)), `Accuracy by number of units, ${siteName(row)}`)] : [element("p", {}, "No unit has a weight: the fit always names one label.")]));
      box.replaceChildren(
        element("div", {}, table("by number of units", ["units", `accuracy on ${data.chosen_on}`, "95% interval"],
          steps.map((step) => [String(step.units), share(step.accuracy), range(step.interval)]))),
        element("div", {}, table("by strength C; a smaller C is a stronger penalty", ["C", `accuracy on ${data.chosen_on}`, "95% interval", "units"],
          row.strengths.map((tried) => ({ cells: [`2^${Math.log2(tried.strength)}`, share(tried.accuracy), range(tried.interval), String(tried.units)], current: tried.strength === row.strength })))));
    };
  },
});

const legend = () => element("p", { class: "note" }, "● residual stream after the layer's block · ○ MLP units after the activation · dotted: their controls");

function layerTable(current) {
  return table("Accuracy by layer and site", ["site", "accuracy", "95% interval", "units used", "best unit", "that unit alone", "control"],
    rows.map((row, index) => ({
      cells: [siteName(row), share(row.accuracy), range(row.interval), String(row.units), String(row.best_unit),
        `${share(row.best_unit_accuracy)} (${range(row.best_unit_interval)})`, `${share(row.control_accuracy)} (${range(row.control_interval)})`],
      current: index === current,
      choose: () => select({ row: index }),
    })));
}

function layerChart(current) {
  const layers = [...new Set(rows.map((row) => row.layer))];
  const series = Object.keys(SITES).map((site) => ({ mark: MARKS[site], points: rows.map((row, index) => ({ ...row, index, x: row.layer }))
    .filter((row) => row.site === site) }));
  const controls = series.map(({ points }) => ({ mark: "control", points: points.map((row) => ({ x: row.x, accuracy: row.control_accuracy, interval: row.control_interval })) }));
  return accuracyChart([...series, ...controls], layers.map((layer) => `layer ${layer}`), "Accuracy by layer and site", current);
}

// Points {x, accuracy, interval, index} of each series, with whiskers; a point with an index can be chosen.
function accuracyChart(series, labels, label, current = null) {
  const width = pageWidth, height = 240, left = 52, right = 24, top = 14, bottom = 28;
  const x = (index) => left + ((index + 0.5) * (width - left - right)) / labels.length;
  const y = (part) => top + (1 - part) * (height - top - bottom);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", "aria-hidden": "true" });
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    chart.append(svg("line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick), class: "rule" }));
    chart.append(svg("text", { x: left - 6, y: y(tick) + 4, class: "end" }, `${100 * tick}%`));
  }
  labels.forEach((text, index) => chart.append(svg("text", { x: x(index), y: height - 8, class: "middle" }, text)));
  series.forEach(({ mark, points }, number) => {
    const shift = series.length > 1 ? (number % 2 ? 5 : -5) : 0; // so that whiskers do not cover each other
    const place = (point) => x(point.x) + shift;
    chart.append(svg("polyline", { points: points.map((point) => `${place(point)},${y(point.accuracy)}`).join(" "), class: `line ${mark}` }));
    for (const point of points) {
      if (point.interval) chart.append(svg("line", { x1: place(point), x2: place(point), y1: y(point.interval[0]), y2: y(point.interval[1]), class: `whisker ${mark}` }));
      chart.append(svg("circle", { cx: place(point), cy: y(point.accuracy), r: current !== null && point.index === current ? 7 : 4, class: `mark ${mark}` }));
      if (point.index !== undefined) chart.append(svg("circle", { cx: place(point), cy: y(point.accuracy), r: 12, class: "target", onclick: () => select({ row: point.index }) }));
    }
  });
  return picture(label, chart);
}
