"""Write docs/reproduction.md: every published number of the GPT-1 and GPT-2 papers, ours beside it, and the command.

    python benchmarks/reproduction.py

published.yaml (what to list), the figures that src/gptkit has, recipes/, results/*.json (what we measured) -> the page

A file in results/ has `command`, `date`, `machine`, `differs` (from the paper; "" where nothing does) and `result`,
what `gptkit finetune`, `gptkit eval` or `gptkit eval --all-checkpoints` printed with --json. What is there under the
name of a row is set beside it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gptkit.finetune.job import WARMUP_FRACTION
from gptkit.finetune.options import FinetuneOptions
from gptkit.model_files import GPTShape
from gptkit.recipes import find_recipe
from gptkit.report.text import known_columns
from gptkit.scoring.measures import MEASURES
from gptkit.tasks.table import EVALUATIONS, TASKS, find_evaluation

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "reproduction.md"
BEST_BEFORE = "best published before"
SMALLEST = "GPT-2 117M"
FINETUNE_HELP = "gptkit finetune --help-all"
BILLION = "1-billion-word-language-modeling-benchmark-r13output"
AT_HAND = ("cola", "stsb", "rte")  # the tasks whose data we have
TITLES = {"full": "full", "no_aux": "no auxiliary loss", "no_pretraining": "no pre-training", "lstm": "LSTM"}
VARIANTS = {
    "full": ("models/gpt1", ""),
    "no_aux": ("models/gpt1", " --lm-coef 0"),
    "no_pretraining": ("models/gpt1", " --transfer-layers none"),
    "lstm": ("runs/lstm", ""),
}
COLUMNS = ("number", "published", "best before", "ours", "state", "source", "command")

START = """# Reproduction: every number of the two papers

Written by `python benchmarks/reproduction.py` from `benchmarks/published.yaml`, the figures in the code, the recipes
and `benchmarks/results/`. Accuracies, F1, ROUGE and correlations are in percent.

**State** says how our number compares: *the same*, *run* (measured by the paper's protocol), *partly* (with what
differs), or *not run*, for want of

{needs}

**Command** gives our number, once the preparations below are made; `--data` names the files as their authors
distribute them. Beside a number that was measured *partly*, it is the command that would measure it as the paper did;
what we ran is listed under [our runs](#our-runs).

## Preparations

GPT-1 comes from `git clone https://github.com/openai/finetune-transformer-lm`; GPT-2 needs no preparation. The models
of figure 2 (right) and the LSTM are trained on BooksCorpus, with weights kept along the way. For the overlaps, WebText
is a folder of .txt files, and the training parts of enwik8 and text8 are their first 95%.

    gptkit convert finetune-transformer-lm/model models/gpt1
    gptkit recipes cp pretrain/gpt1 gpt1.yaml && echo "snapshots: 20" >> gpt1.yaml
    gptkit pretrain BooksCorpus -r gpt1.yaml --tokenizer finetune-transformer-lm/model --out runs/gpt1
    gptkit pretrain BooksCorpus -r gpt1.yaml --tokenizer finetune-transformer-lm/model --model lstm --out runs/lstm
    head -c 95000000 enwik8 > enwik8.train.txt && head -c 95000000 text8 > text8.train.txt
    cp wikitext-2-raw/wiki.train.raw wikitext2.train.txt && cp wikitext-103/wiki.train.tokens wikitext103.train.txt
    cat {billion}/training-monolingual.tokenized.shuffled/* > 1bw.train.txt
"""


class Row(NamedTuple):
    """A line of the page; `key` is the name under which results/ may have our number."""

    name: str
    published: str
    source: str
    command: str
    before: str = ""
    ours: str = ""
    key: str = ""
    differs: str = ""
    needs: Sequence[str] = ()


class Run(NamedTuple):
    """One of our numbers, and the file that has it."""

    value: float | None  # None where a seed's is undefined
    differs: str


Facts = Mapping[str, Any]  # a row of published.yaml, with its section's `source` and `needs`


# --- the rows of each kind ---


def number_rows(facts: Facts) -> Iterator[Row]:
    recipe, command, ours = facts.get("recipe", ""), facts.get("command", ""), ""
    if recipe:
        ours = recipe_value(recipe, facts["key"])
        command = command or (FINETUNE_HELP if recipe == "finetune" else f"gptkit recipes show {recipe}")
    yield Row(
        facts["name"],
        number(facts["published"]),
        facts["source"],
        command,
        f"{facts.get('before', '')}",
        ours,
        facts.get("ours", ""),
        facts.get("differs", ""),
        facts.get("needs", ()),
    )


def task_rows(facts: Facts) -> Iterator[Row]:
    task = TASKS[facts["task"]]
    figure = task.published
    assert figure is not None, task.name
    evaluation = EVALUATIONS.get(task.name)
    best = [row for protocol in evaluation.protocols for row in protocol.published] if evaluation else []
    yield Row(
        f"{task.name}, {MEASURES[figure.measure].label}",
        scaled(figure.measure, figure.value),
        figure.source,
        finetune(task.name, facts.get("data", "hf:"), "full"),
        scaled(best[0].measure, best[0].value) if best else f"{facts['before']}",
        key=f"{task.name}/full.{figure.measure}",
        differs=facts.get("differs", ""),
        needs=facts["needs"],
    )


def ablation_rows(facts: Facts) -> Iterator[Row]:
    variant, tasks = facts["ablation"], {name: task for name, task in TASKS.items() if task.ablation}
    del tasks["stsb-soft"]  # the same figures as stsb
    if "name" not in facts:
        for name, task in tasks.items():
            yield from ablation_rows({**facts, "name": name, "published": task.ablation[variant]})
        return
    name, needs = facts["name"], facts["needs"]
    label, key, command = name, "", finetune("$task", "hf:", variant)
    if name in tasks:
        measure = tasks[name].metrics[0]
        label, key = f"{name}, {MEASURES[measure].label}", f"{name}/{variant}.{measure}"
        needs = [need for need in needs if need != "data" or name not in AT_HAND]
        command = finetune(name, "hf:", variant)
    else:
        command = f"for task in {' '.join(tasks)}; do {command}; done"
    yield Row(f"{TITLES[variant]}: {label}", f"{facts['published']}", facts["source"], command, key=key, needs=needs)


def evaluation_rows(facts: Facts, models: Mapping[str, str]) -> Iterator[Row]:
    name = facts["evaluation"]
    evaluation = find_evaluation(name)
    assert evaluation is not None, name
    for figure in evaluation.protocols[0].published:
        if not figure.model.startswith(BEST_BEFORE) and figure.source.startswith("GPT-2 paper"):
            of_measure = [row for row in evaluation.protocols[0].published if row.measure == figure.measure]
            best = [row for row in of_measure if row.model == f"{BEST_BEFORE} GPT-2"]
            size = f"{figure.model}: " if figure.model in models else ""
            model = models.get(figure.model, models[SMALLEST])
            yield Row(
                f"{size}{name}, {MEASURES[figure.measure].label}",
                scaled(figure.measure, figure.value),
                ", ".join(figure.source.split(", ")[:2]),
                f"gptkit eval --task {name} --data {facts['data']} --model hf:openai-community/{model}",
                scaled(best[0].measure, best[0].value) if best else f"{facts.get('before', '')}",
                key=f"{name}.{figure.measure}" if figure is of_measure[0] else "",
                needs=facts["needs"],
            )


def overlap_rows(facts: Facts) -> Iterator[Row]:
    name = facts["overlap"]
    corpora = ((facts["train"], "its training set", ["data"]), ("WebText", "WebText", facts["needs"]))
    for value, (corpus, title, needs) in zip(EVALUATIONS[name].overlap or (), corpora, strict=True):
        words = ["gptkit eval --task", name, "--data", facts["data"], "--model hf:openai-community/gpt2"]
        command = " ".join([*words, "--contamination", corpus])
        yield Row(f"{name} in {title}", f"{round(100 * value, 2)}", facts["source"], command, needs=needs)


def rows_of(facts: Facts, models: Mapping[str, str]) -> Iterator[Row]:
    if "evaluation" in facts:
        return evaluation_rows(facts, models)
    kinds = {"task": task_rows, "ablation": ablation_rows, "overlap": overlap_rows}
    return next((rows(facts) for kind, rows in kinds.items() if kind in facts), number_rows(facts))


# --- numbers and commands ---


def number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def scaled(measure: str, value: float) -> str:
    """Return a value as the papers write it: fractions and correlations in percent, normalised scores in 0.01."""
    if measure == "normalised":
        return f"{value:.2f}"
    in_percent = MEASURES[measure].unit in ("percent", "correlation")
    return f"{round(100 * value, 2)}" if in_percent else f"{value:.5g}"


def finetune(task: str, data: str, variant: str) -> str:
    model, more = VARIANTS[variant]
    return f"gptkit finetune --task {task} --data {data} --model {model}{more} --predict test"


def recipe_value(name: str, key: str) -> str:
    """Return the value of a key in a recipe or a preset, with its defaults, or among the options of finetune."""
    if name == "finetune":
        options = {field.name: field.default for field in dataclasses.fields(FinetuneOptions)}
        return number({**options, "warmup_fraction": WARMUP_FRACTION}[key])
    path = find_recipe(name).path
    if path.suffix == ".yaml":
        return number(float(value) if isinstance(value := yaml.safe_load(path.read_text())[key], str) else value)
    fields = {field.name for field in dataclasses.fields(GPTShape)}
    shape = GPTShape(**{name: value for name, value in json.loads(path.read_text()).items() if name in fields})
    derived = {"n_inner": shape.inner_width, "parameters": round(parameters(shape) / 1e6)}
    return number(derived[key] if key in derived else getattr(shape, key))


def parameters(shape: GPTShape) -> int:
    """Return the number of parameters, tied embeddings counted once."""
    width, inner = shape.n_embd, shape.inner_width
    block = 4 * width * width + 2 * width * inner + 4 * width + inner + width + 4 * width
    return (shape.vocab_size + shape.n_positions) * width + shape.n_layer * block + 2 * width * shape.pre_norm


# --- our runs ---


def read_runs(folder: Path) -> tuple[dict[str, Run], list[tuple[str, ...]]]:
    """Return our numbers by the keys of rows, and a line for each run."""
    found: dict[str, Run] = {}
    lines = []
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        link = f"[{path.stem}](../benchmarks/results/{path.name})"
        lines.append((link, f"`{run['command']}`", run["date"], run["machine"]))
        for key, value in numbers_in(run["result"]).items():
            if key in found:
                raise SystemExit(f"{path}: another file has {key} too; remove one of them")
            found[key] = Run(value, f"{run['differs']} ({link})" if run["differs"] else "")
    return found, lines


def numbers_in(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the numbers in what `gptkit finetune` or `gptkit eval` printed, by the keys of rows."""
    if "normalised" in result:
        return {f"{key}.normalised": curve[-1] for key, curve in result["normalised"].items()}
    if "results" in result:
        parts = {
            key: {name: row["value"] for name, row in found["metrics"].items()}
            for key, found in result["results"].items()
        }
    else:
        variants = result.get("variants", {"full": result})
        parts = {f"{result['task']}/{name}": found["metrics"] for name, found in variants.items()}
    return {f"{key}.{name}": value for key, found in parts.items() for name, value in found.items()}


# --- the page ---


def cells(row: Row, runs: Mapping[str, Run]) -> tuple[str, ...]:
    ours, state = row.ours, f"not run: {', '.join(row.needs)}"
    if row.ours:
        state = "the same" if row.ours == row.published else f"partly: {row.differs}"
    elif run := runs.get(row.key):
        ours = "n/a" if run.value is None else scaled(row.key.rpartition(".")[2], run.value)
        state = f"partly: {run.differs}" if run.differs else "run"
    elif row.differs:
        state += f"; {row.differs}"
    return row.name, row.published, row.before, ours, state, row.source, f"`{row.command}`"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    header, rows = known_columns(header, rows)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page() -> str:
    listed = yaml.safe_load((HERE / "published.yaml").read_text(encoding="utf-8"))
    runs, lines = read_runs(HERE / "results")
    needs = ";\n".join(f"- *{name}*: {why}" for name, why in listed["needs"].items()) + "."
    parts = [START.format(needs=needs, billion=BILLION)]
    for section in listed["sections"]:
        shared = {name: section[name] for name in ("source", "needs") if name in section}
        rows = [row for facts in section["rows"] for row in rows_of({**shared, **facts}, listed["models"])]
        parts += [f"## {section['title']}", *filter(None, [section.get("about")])]
        parts.append(table(COLUMNS, [cells(row, runs) for row in rows]))
    parts += ["## Our runs", table(("run", "command", "date", "machine"), lines)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
