"use strict";
// View 3: one head's arithmetic, with every number that it takes.

view({
  id: "by-hand",
  title: "One head by hand",
  lead: "How a head gets from vectors to its output, in numbers that a calculator can check: score = q·k / √d, masked, softmax, then the sum of weight × value.",
  build(body) {
    let { layer, head, query, key: keys, value: values, output } = data.hand;
    const width = query.shape[1];
    const picker = choices("Rows", [["few", "the heaviest keys"], ["all", "all keys"]], (rows) => { shownRows = rows; draw(state); });
    let shownRows = "few";
    const chosen = element("button", { type: "button", onclick: () => select({ layer, head }) }), other = element("span", {}), title = element("h3", {}), product = element("div", {}), sums = element("div", {}), result = element("div", {});
    body.append(
      element("p", {}, "The head is ", chosen, `, with vectors of d = ${width} numbers.`, other),
      title, picker[0], sums, element("div", { class: "columns" }, product, result));

    function rowsOf(token) {
      const rows = Array.from({ length: token + 1 }, (_, key) => {
        const dot = query.row(token).reduce((sum, one, index) => sum + one * keys.at(key, index), 0);
        return { key, dot, score: dot / Math.sqrt(width) };
      });
      const top = Math.max(...rows.map(({ score }) => score));
      rows.forEach((row) => (row.exp = Math.exp(row.score - top)));
      const total = rows.reduce((sum, { exp }) => sum + exp, 0);
      rows.forEach((row) => (row.weight = row.exp / total));
      return { rows, top, total };
    }

    function draw({ token, key, dimension, layer: layerNow, head: headNow }) {
      const now = `${layerNow}.${headNow}`;
      if (data.handOf) ({ layer, head, query, key: keys, value: values, output } = data.handOf(layerNow, headNow)); // of the live model
      chosen.textContent = `${layer}.${head}`;
      other.textContent = now === chosen.textContent ? "" : ` The page has the numbers of this head alone; for head ${now} add --head ${now} to the command.`;
      const { rows, top, total } = rowsOf(token);
      const heaviest = [...rows].sort((one, other) => other.weight - one.weight).slice(0, 6);
      const shown = shownRows === "all" ? rows : rows.filter((row) => heaviest.includes(row) || row.key === key);
      const rest = rows.filter((row) => !shown.includes(row));
      const part = (row) => row.weight * values.at(row.key, dimension);
      const add = (list, of) => list.reduce((sum, row) => sum + of(row), 0);
      const columns = ["key", "q·k", "score: q·k / √d", "mask", `exp(score − ${number(top, 4)})`, "weight", `v[${dimension}]`, `weight × v[${dimension}]`];
      const lines = shown.map((row) => ({
        cells: [tokenName(row.key), number(row.dot, 4), number(row.score, 4), "+0", number(row.exp, 5), number(row.weight, 5), number(values.at(row.key, dimension), 4), number(part(row), 5)],
        current: row.key === key,
        choose: () => select({ key: row.key }),
      }));
      if (rest.length) lines.push({ cells: [`${plural(rest.length, "other key")}`, "", "", "+0", number(add(rest, (row) => row.exp), 5), number(add(rest, (row) => row.weight), 5), "", number(add(rest, part), 5)], kind: "aside" });
      if (token < LAST) lines.push({ cells: [`${plural(LAST - token, "later key")}`, "", "", "−∞", "0", "0", "", "0"], kind: "aside" });
      lines.push({ cells: ["sum", "", "", "", number(total, 5), number(add(rows, (row) => row.weight), 5), "", number(add(rows, part), 5)], kind: "total" });
      picker[1](shownRows);
      title.replaceChildren("Query: ", ...tokenName(token));
      const box = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Scores, weights and output", "data-arrows": "dimension key" },
        table(`Scores and weights of ${plainName(token)}; ${number(top, 4)} is the largest score`, columns, lines));
      sums.replaceChildren(box);
      product.replaceChildren(...dotProduct(token, key));
      result.replaceChildren(...outputOf(token, dimension, add(rows, part)));
    }

    function dotProduct(token, key) {
      const lines = [...query.row(token)].map((one, index) =>
        [`[${index}]`, number(one, 4), number(keys.at(key, index), 4), number(one * keys.at(key, index), 4)]);
      const dot = [...query.row(token)].reduce((sum, one, index) => sum + one * keys.at(key, index), 0);
      return [element("h3", {}, "q·k of ", tokenName(token), " and ", tokenName(key)),
        element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Products" },
          table(`q·k, dimension by dimension`, ["", "q", "k", "q × k"], lines)),
        element("p", { class: "readout" }, `q·k = ${number(dot, 4)}; divided by √${width} = ${number(Math.sqrt(width), 4)}: score ${number(dot / Math.sqrt(width), 4)}`)];
    }

    function outputOf(token, dimension, computed) {
      const cells = [...output.row(token)].map((value, index) => element("button", {
        type: "button", tabindex: -1, "aria-pressed": String(index === dimension), title: `dimension ${index}`, onclick: () => select({ dimension: index }),
      }, number(value, 3)));
      return [element("h3", {}, "Output of ", tokenName(token)),
        element("div", { class: "cells", tabindex: 0, role: "group", "aria-label": `Output, ${width} numbers; the chosen one is taken apart above`, "data-arrows": "dimension" }, cells),
        element("p", { class: "readout" }, `dimension ${dimension}: ${number(computed, 4)} by the sum above, ${data.off?.has(`${layer}.${head}`) ? "but the head is switched off" : `${number(output.at(token, dimension), 4)} in the model`}`)];
    }
    return draw;
  },
});
