"use strict";
// Builds the page: its head, the links, and the views in their order.

document.getElementById("head").append(
  element("h1", {}, "What ", element("bdi", {}, data.model), " knows of ", element("bdi", {}, data.task)),
  element("p", { class: "facts" }, `${data.n_train.toLocaleString("en")} examples to train on, ${data.n_reported.toLocaleString("en")} of ${data.split} · best on ${data.chosen_on}: `
    + `${siteName(data.best)}, ${share(data.best.accuracy)} (${range(data.best.interval)}) with ${plural(data.best.units, "unit")} · best MLP unit ${data.unit}: ${share(data.unit_accuracy)} alone`),
  element("p", { class: "note" }, "An analogue of the sentiment neuron (Radford, Jozefowicz and Sutskever 2017). There: a byte-level multiplicative LSTM of 4,096 units, "
    + "trained on 82 million product reviews, its last cell state read by L1 logistic regression: 91.8% on SST with a few tens of units, one unit alone 92.3% on IMDB. "
    + "Here: a GPT's residual stream and MLP units, each divided by its standard deviation; several classes one against the rest."),
);
document.getElementById("nav").append(element("div", { class: "links" }, views.map(({ id, title }, index) => element("a", { href: `#${id}` }, `${index + 1} ${title}`))));
measure();
views.forEach(({ id, title, lead, build }, index) => {
  const body = element("section", { id, "aria-labelledby": `${id}-title` },
    element("h2", { id: `${id}-title` }, element("span", { class: "count" }, String(index + 1)), title), element("p", { class: "lead" }, lead));
  document.getElementById("views").append(body);
  updates.push(build(body));
});
select({});
if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
addEventListener("resize", () => pageWidth !== measure() && select({})); // charts are as wide as the page
