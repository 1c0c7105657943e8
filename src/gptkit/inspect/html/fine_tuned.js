"use strict";
// View 8: what the head of a fine-tuned model reads, sequence by sequence, and how its scores come about.

view({
  id: "fine-tuned",
  title: "Fine-tuned",
  lead: "A fine-tuned model's head reads the state of the extract token, the last of each sequence, and with head: concat also the mean and maximum of all its tokens' states: of one text, of a pair in both orders, or of every choice.",
  build(body) {
    const tuned = data.fine_tuned;
    if (!tuned) {
      body.append(element("p", { class: "note" }, "This model has no classifier. For one that has: gptkit inspect TEXT --model RUN, of a run of gptkit finetune."));
      return () => {};
    }
    const { names, ids, attention, scores, bias, logits } = tuned, sequences = upTo(names.length);
    const isChoice = logits.shape[0] !== scores.shape[1], isScore = data.answer.length === 1;
    const lengths = sequences.map((sequence) => ids.row(sequence).filter((id) => id >= 0).length);
    const ways = {
      head: [({ layer, head }) => `head ${layer}.${head}`, ({ layer, head }, sequence, position) => attention.at(layer, head, sequence, position)],
      layer: [({ layer }) => `layer ${layer}, mean of its heads`, ({ layer }, sequence, position) => mean(upTo(HEADS).map((head) => attention.at(layer, head, sequence, position)))],
      all: [() => "all heads, mean", (_, sequence, position) => mean(upTo(LAYERS).flatMap((layer) => upTo(HEADS).map((head) => attention.at(layer, head, sequence, position))))],
    };
    let way = "layer";
    const [buttons, updateButtons] = choices("Attention of", [["head", "the chosen head"], ["layer", "its layer"], ["all", "all heads"]], (chosen) => { way = chosen; draw(state); });
    const title = element("h3", {}), strips = element("div", {});
    const [numbers, updateNumbers] = numbersOf("Table of the extract token's attention", () => table(`Attention of the extract token: ${ways[way][0](state)}`,
      ["sequence", "position", "token", "weight"], sequences.flatMap((sequence) => upTo(lengths[sequence]).map((position) =>
        [names[sequence], String(position), word(piece(ids.at(sequence, position))), number(ways[way][1](state, sequence, position), 4)]))));
    body.append(scoresTable(), title, buttons, strips, numbers);

    function scoresTable() {
      const outputs = upTo(logits.shape[0]), isSoft = isScore && outputs.length > 1; // a probability of each whole score
      const answers = isSoft ? Array.from(softmax(logits.values).weights, (weight, index) => [`score ${index}`, weight]) : data.answer;
      const most = Math.max(...answers.map(([, value]) => value)), isPlain = isScore && !isSoft;
      const rows = answers.map(([label, value], index) => ({
        cells: [word(label), ...(isChoice ? [scores.at(index, 0)] : sequences.map((sequence) => scores.at(sequence, index))).map((score) => number(score, 4)),
          number(bias.at(isChoice ? 0 : index), 4), number(logits.at(index), 4), isPlain ? number(value, 4) : bar(value, 1, number(value, 4))],
        current: !isPlain && value === most,
      }));
      if (isSoft) rows.push({ cells: ["mean score", ...sequences.map(() => ""), "", "", number(data.answer[0][1], 4)], kind: "total" });
      const parts = isChoice ? ["score"] : names;
      return element("div", { class: "scroll whole", tabindex: 0, role: "region", "aria-label": "Scores" },
        table(isChoice ? "Scores of the choices" : "Scores of the labels: the sum of what each sequence gives", [isChoice ? "choice" : "label", ...parts, "bias", "logit", isPlain ? "answer" : "probability"], rows, "scores"));
    }

    function draw(now) {
      const [name, weightOf] = ways[way];
      updateButtons(way);
      title.textContent = `Where the extract token looks: ${name(now)}`;
      strips.replaceChildren(...sequences.flatMap((sequence) => {
        const weights = upTo(lengths[sequence]).map((position) => weightOf(now, sequence, position)), most = Math.max(...weights);
        return [element("h4", {}, names[sequence]), element("p", { class: "shaded" }, weights.map((weight, position) => {
          const text = element("bdi", { class: "piece", title: `${piece(ids.at(sequence, position))} (${position}): ${number(weight, 4)}` }, piece(ids.at(sequence, position)));
          text.style.setProperty("--share", `${Math.round((70 * weight) / most)}%`);
          return [text, " "];
        }))];
      }));
      updateNumbers();
    }
    return draw;
  },
});

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
