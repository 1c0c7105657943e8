"use strict";
// The two kinds of charts, as wide as the place they are in: lines over the places of a token's path, and bars over the tokens.

let pageWidth = 0; // measured when it changes, since measuring between drawings costs a layout each time
const measure = () => (pageWidth = Math.max(document.getElementById("views").clientWidth, 280)); // a hidden window has none

const picture = (label, ...children) => element("figure", { role: "img", "aria-label": label }, ...children);

// Lines with marks: series is [{name, values, mark: "dot" | "ring" | "cross"}]; of one or two, the value at `current` is written beside its mark.
function lineChart({ width, series, labels, current, low, high, choose, digits = 2 }) {
  const height = 190, left = 44, right = 18, top = 22, bottom = 26;
  const x = (index) => left + (index * (width - left - right)) / Math.max(labels.length - 1, 1);
  const y = (value) => top + ((high - value) * (height - top - bottom)) / (high - low || 1);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", "aria-hidden": "true" });
  for (const tick of [low, (low + high) / 2, high]) {
    chart.append(svg("line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick), class: "rule" }));
    chart.append(svg("text", { x: left - 6, y: y(tick) + 4, class: "end" }, number(tick, high - low > 20 ? 0 : digits)));
  }
  chart.append(svg("line", { x1: x(current), x2: x(current), y1: top, y2: height - bottom, class: "cursor" }));
  const every = Math.ceil((labels.length * 44) / width);
  labels.forEach((label, index) => {
    if (index % every === 0) chart.append(svg("text", { x: x(index), y: height - 8, class: "middle" }, label));
  });
  for (const { values, mark } of series) {
    const points = Array.from(values, (value, index) => `${x(index)},${y(value)}`);
    chart.append(svg("polyline", { points: points.join(" "), class: `line ${mark}` }));
    Array.from(values, (value, index) =>
      chart.append(markAt(mark, x(index), y(value), index === current ? 5 : 3)));
  }
  for (const { values, mark } of series.length > 2 ? [] : series) { // more would cover each other
    const isLate = current > labels.length / 2;
    chart.append(svg("text", {
      x: x(current) + (isLate ? -8 : 8), y: y(values[current]) + (mark === "ring" ? 16 : -8), class: isLate ? "value end" : "value",
    }, number(values[current], digits)));
  }
  labels.forEach((_, index) => {
    const half = (width - left - right) / Math.max(labels.length - 1, 1) / 2;
    chart.append(svg("rect", { x: x(index) - half, y: 0, width: 2 * half, height, class: "target", onclick: () => choose(index) }));
  });
  return chart;
}

const markAt = (mark, x, y, size) => mark === "cross"
  ? svg("path", { d: `M${x - size} ${y - size}l${2 * size} ${2 * size}m0 ${-2 * size}l${-2 * size} ${2 * size}`, class: "cross" })
  : svg("circle", { cx: x, cy: y, r: size, class: `mark ${mark}` });

// Bars of the tokens, up or down from 0: values[i] may be null; `current` is outlined and named, `crosses[i]` lists the rows
// of crosses below it; the scale goes up to `least` or more.
function barChart({ width, values, current, name, crosses = [], rows = [], choose, least = 1 }) {
  const height = 200 + 18 * rows.length, left = 44, bottom = 18 * rows.length + 6, top = 26;
  const high = Math.max(...values, least), low = Math.min(...values, 0), step = (width - left) / values.length;
  const y = (value) => top + ((high - value) / (high - low)) * (height - top - bottom);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", "aria-hidden": "true" });
  const ticks = low < 0 ? [low, 0, high].filter((tick) => tick === 0 || Math.abs(tick) > (high - low) / 9) : [0, high / 2, high];
  for (const tick of ticks) {
    chart.append(svg("line", { x1: left, x2: width, y1: y(tick), y2: y(tick), class: "rule" }));
    chart.append(svg("text", { x: left - 6, y: y(tick) + 4, class: "end" }, number(tick, high - low < 1 ? 3 : 1)));
  }
  values.forEach((value, index) => {
    const x = left + index * step;
    if (value !== null) {
      const attributes = { x: x + step * 0.1, y: y(Math.max(value, 0)), width: step * 0.8, height: Math.max(Math.abs(y(0) - y(value)), 0.5) };
      chart.append(svg("rect", { ...attributes, class: `column${value < 0 ? " below" : ""}${index === current ? " current" : ""}` }));
      crosses[index]?.forEach((cut, row) => {
        if (!cut) return;
        chart.append(markAt("cross", x + step / 2, height - bottom + 16 + 18 * row, Math.min(4, step * 0.35)));
      });
      chart.append(svg("rect", { x, y: 0, width: step, height, class: "target", "data-token": index, onclick: () => choose(index) }));
    }
    if (index === current) {
      const isLate = index > values.length / 2;
      chart.append(svg("path", { d: `M${x + step / 2 - 5} ${top - 10}h10l-5 7z`, class: "pointer" }));
      chart.append(svg("text", { x: x + step / 2 + (isLate ? -10 : 10), y: top - 8, class: isLate ? "value end" : "value" }, name));
    }
  });
  rows.forEach((row, index) => chart.append(svg("text", { x: left - 6, y: height - bottom + 20 + 18 * index, class: "end" }, row)));
  return chart;
}
