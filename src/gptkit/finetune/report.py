"""Reports of fine-tuning: result tables of seeds and studies, the model card, and prediction files."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gptkit
from gptkit.console import Console
from gptkit.errors import AGAIN
from gptkit.finetune.job import FinetuneRun
from gptkit.finetune.options import FinetuneOptions
from gptkit.finetune.study import ULMFIT_PARTS, ULMFIT_VARIANTS, best_on_dev
from gptkit.report.model_card import model_card, model_facts, with_measured
from gptkit.report.plots import draw_intervals
from gptkit.report.text import known_columns
from gptkit.scoring.measures import MEASURES
from gptkit.system import files
from gptkit.system.writing import json_text
from gptkit.tasks.heads import MOST_FREQUENT, output_labels, predictions_of, probabilities_of
from gptkit.tasks.own import TASK_FILE
from gptkit.tasks.task import FORMAT_FIELDS, Task
from gptkit.text.embedded import LICENCE
from gptkit.text.examples import Example
from gptkit.training.rules import Choices

MORE_PRETRAINING = "pre-train longer, and fine-tune the weights of the last step rather than an early snapshot"
BAR = 40  # cells of the longest bar
FEW = 100  # examples of dev, on which an interval of accuracy is 20 points wide
SNIPPET = """\
from pathlib import Path

from gptkit.model.loading import load_model
from gptkit.model.model_types import ANY
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.tasks.encoding import encode_examples
from gptkit.tasks.head_outputs import logits_of, marker_ids
from gptkit.tasks.heads import Head, predictions_of
from gptkit.text.examples import Example
from gptkit.text.tokenizers.loading import tokenizer_in

folder = Path(".")  # of this model
task, tokenizer = Head.of(folder).own_task(), tokenizer_in(folder)
model = load_model(folder, head=GPTDoubleHeadsModel, types=ANY).eval()
examples = [Example(FIELDS, label=None, where="", identifier="")]
markers, limit = marker_ids(folder, len(tokenizer)), model.config.n_positions
logits = logits_of(model, encode_examples(tokenizer, task, examples, markers, limit))
print(*[task.labels[each] if task.labels else each for each in predictions_of(task, logits)])"""
# rows of table 5 (GPT-1 paper)
VARIANT_TITLES = {
    "full": "full (aux LM)",
    "no_aux": "no aux LM",
    "no_pretraining": "no pre-training",
    "lstm": "LSTM + aux LM",
    "frozen_mix": "frozen, mix of layers",
    "masked": "masked model + aux",
}
ULMFIT_TITLES = {name: name.replace("_", " ") for name in ULMFIT_VARIANTS}


def print_result(result: Mapping[str, Any], task: Task, console: Console) -> None:
    """Print a result as a table beside chance; of a study, each variant, the paper's figure and what `full` gains.

    Intervals are over the seeds or, with one seed, over the examples of dev.
    """
    title = f"{result['run_dir']}: {task.name} dev, from {result['model']}"
    variants, first = result.get("variants"), task.metrics[0]
    titles = _titles(variants or {})
    paper = task.ablation if titles is VARIANT_TITLES else {}
    metrics = (first,) if variants else task.metrics
    if variants:
        columns: tuple[str, ...] = ("variant", "paper", first, "std", "95% interval", "chance")
        rows = [(titles[name], _shown(paper.get(name)), *_figures(ours, first)) for name, ours in variants.items()]
    else:
        columns = ("metric", "dev", "std", "95% interval", "chance", "GPT-1 on test")
        rows = [(name, *_figures(result, name), _published(task, name)) for name in metrics]
    console.table(title, *known_columns(columns, rows))
    for name, each in variants.items() if variants else [("", result)]:
        _print_mix(each, console)
        if "rerun" in each:
            console.result(f"{titles[name]}, first seed: {each['rerun']}")
    if any(_interval_of(result, name) for name in metrics):
        chose = "the epoch and the model" if len(result["per_seed"]) > 1 else "the epoch"
        console.result(f"95% interval: over {_sample(result)}; dev chose {chose}, so new data may score lower")
    if result.get("chance", {}).keys() & metrics and task.target == "class":
        console.result(MOST_FREQUENT)
    for split, figures in result.get("predicted", {}).items():
        if "metrics" in figures:
            rows = [(name, *_figures(figures, name)) for name in task.metrics]
            console.table("", *known_columns(("metric", split, "std", "95% interval", "chance"), rows))
            console.result(f"95% interval: over {figures['n']:,} items of {split}")
    gains = result.get("full_minus", {})
    for variant, gain in gains.items():
        console.result(f"full minus {titles[variant]}: {_gain(gain, _sample(result))}")
    chance, lowest = result.get("chance", {}).get(first), (_interval_of(result, first) or [result["metrics"][first]])[0]
    if chance is not None and lowest is not None and lowest <= chance:
        few = "more labelled examples, as dev has so few, " * (result["n_eval"] < FEW)
        rate = "--learning-rate" if result.get("features", "none") == "none" else "--head-learning-rate"
        cure = few + "more --seeds, " * (len(result["per_seed"]) > 1) + f"more --epochs or a higher {rate}"
        console.result(f"{first} is not shown to be better than chance: try {cure}")
    lost = _interval_of_gain(gains.get("no_pretraining", {}))
    if lost is not None and lost[1] < 0:
        console.result(f"pre-training lowers the score here: {MORE_PRETRAINING}")
    each = [*variants.values()] if variants else [result]
    if undefined := [name for name in metrics if any(one["metrics"][name] is None for one in each)]:
        console.result(f"{' and '.join(undefined)}: n/a where all predictions, or all labels, are alike")


def draw_study(result: Mapping[str, Any], task: Task, path: Path) -> None:
    """Plot the variants of a study: the mean of the first metric, its interval, and each seed."""
    metric, variants = task.metrics[0], result["variants"]
    rows = []
    for name, each in variants.items():
        seeds = [seed["metrics"][metric] for seed in each["per_seed"]]
        rows.append((_titles(variants)[name], each["metrics"][metric], _interval_of(each, metric), seeds))
    xlabel, chance = f"dev {metric}: mean, 95% interval, each seed", result.get("chance", {}).get(metric)
    draw_intervals(rows, path, f"{task.name}: {_sample(result)}", xlabel=xlabel, reference=chance)


def _titles(variants: Mapping[str, Any]) -> Mapping[str, str]:
    return ULMFIT_TITLES if "no_concat" in variants else VARIANT_TITLES


def _print_mix(result: Mapping[str, Any], console: Console) -> None:
    """Print the weights of a learnt mix of layers as a bar chart, the mean over seeds."""
    mixes = [seed["mix"] for seed in result["per_seed"] if "mix" in seed]
    if not mixes:
        return
    weights, gamma = np.mean([mix["weights"] for mix in mixes], axis=0), np.mean([mix["gamma"] for mix in mixes])
    names = ["embeddings", *(f"layer {layer}" for layer in range(len(weights) - 1))]
    bars = ["█" * round(BAR * weight / weights.max()) for weight in weights]
    rows = [(name, f"{weight:.3f}", bar) for name, weight, bar in zip(names, weights, bars, strict=True)]
    console.table(f"learnt weights of the layers' states, gamma {gamma:.3f}", ("state", "weight", ""), rows)


def _gain(gain: Mapping[str, Any], sample: str) -> str:
    """Return a difference in points, or that none was found: its interval holds zero."""
    interval = _interval_of_gain(gain)
    if gain["mean"] is None:
        return "n/a"
    if interval is None:
        return f"not known from {sample}"
    found = f"95% interval over {sample}: {' to '.join(_difference(gain, end) for end in interval)}"
    if interval[0] <= 0 <= interval[1]:
        return f"too few to tell ({found})"
    unit = "" if MEASURES[gain["metric"]].unit == "correlation" else " points"
    return f"{_difference(gain, gain['mean'], sign='+')}{unit} ({found})"


def _interval_of_gain(gain: Mapping[str, Any]) -> Sequence[float] | None:
    return gain.get("interval") or gain.get("item_interval")


def _sample(result: Mapping[str, Any]) -> str:
    seeds = len(result["per_seed"])
    return f"{result['n_eval']:,} items of dev, {f'{seeds} seeds' if seeds > 1 else 'one seed'}"


def _interval_of(result: Mapping[str, Any], metric: str) -> Sequence[float] | None:
    intervals: Mapping[str, Any] = result.get("interval") or result.get("item_interval") or {}
    return intervals.get(metric)


def _figures(result: Mapping[str, Any], metric: str) -> tuple[str, ...]:
    """Return a metric's value, standard deviation, interval and chance as they are shown."""
    std = result.get("std", {}).get(metric)
    interval = " to ".join(shown(metric, end) for end in _interval_of(result, metric) or (None,))
    chance = result.get("chance", {}).get(metric)  # which runs of earlier versions lack
    return shown(metric, result["metrics"][metric]), shown(metric, std), interval, shown(metric, chance)


def _published(task: Task, metric: str) -> str:
    """Return the paper's test figure for the metric with its source, or n/a."""
    if task.published is None or task.published.measure != metric:
        return "n/a"
    facts = [task.published.source, *filter(None, [task.note])]
    return f"{shown(metric, task.published.value)} ({'; '.join(facts)})"


def _shown(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g}"


def shown(metric: str, value: float | None) -> str:
    """Format a metric as eval does; one that is not defined is NaN while it is computed, and None in a result."""
    return MEASURES[metric].shown(None if value is None or math.isnan(value) else value)


def _difference(gain: Mapping[str, Any], value: float, *, sign: str = "") -> str:
    """Format a difference of a metric: in points, or of correlations as they are."""
    is_correlation = MEASURES[gain["metric"]].unit == "correlation"
    return f"{value:{sign}.4f}" if is_correlation else f"{100 * value:{sign}.2f}"


def _how(options: FinetuneOptions) -> str:
    """Return what a card says of the training beyond its defaults."""
    if options.features != "none":
        read = "last layer" if options.features == "last" else "layers, mixed"
        return f" Only a linear head was trained, on the states of the frozen model's {read}."
    changed = [name for name in ULMFIT_PARTS if getattr(options, name) != getattr(FinetuneOptions, name)]
    how = ", ".join(f"{name} {getattr(options, name)}" for name in changed)
    return f" Changed from the defaults of fine-tuning: {how}." if how else ""


def card_of(run: FinetuneRun, choices: Choices, result: Mapping[str, Any], *, command: str) -> str:
    """Return the card of a fine-tuned model."""
    options, inputs, task, kind = run.options, run.inputs, run.inputs.task, run.model.config.family
    start = "fresh weights" if options.transfer_layers == "none" else f"the weights of {inputs.model_name}"
    score = "a score" if task.score_range is None else "a score from {:g} to {:g}".format(*task.score_range)
    answers = {"class": f"one of {', '.join(task.labels)}", "choice": "the index of a choice, from 0"}
    return model_card(
        name=Path(str(result["run_dir"])).name,
        summary=f"{kind} fine-tuned on {task.name} ({task.format}) with gptkit {gptkit.__version__}, from {start}."
        + _how(options),
        **model_facts(run.model, choices),
        data=f"{task.name}: {len(inputs.train):,} training examples, {len(inputs.dev):,} dev examples; {task.data}",
        data_sha256=inputs.identity["data_sha256"],
        licence=LICENCE if task.is_demo else "not stated" if task.is_own else f"the data set's own: see {task.data}",
        tokenizer=f"{len(inputs.tokenizer):,} entries, from {inputs.model_name}",
        command=command,
        python=_snippet(task),
        use=_commands(task),
        task={
            "name": task.name,
            "format": task.format,
            "reads": ", ".join(FORMAT_FIELDS[task.format]),
            "answers": answers.get(task.target, score),
            "metrics": ", ".join(task.metrics),
            "described by": TASK_FILE if task.is_own else "gptkit tasks",
        },
        limits="It knows only what its training examples show: measure it on your own data before you trust it.",
        measured=_measured(result, task, options.epochs),
    )


def _commands(task: Task) -> str:
    """Return the commands that label a new example and that score the model again."""
    words = [word for text in _new_example(task) for word in ([text] if isinstance(text, str) else text)]
    elsewhere = "" if task.is_demo else "  # in another place also --data, its files' folder"
    return f"{shlex.join(['gptkit', 'predict', *words])} --model .\ngptkit eval --model .{elsewhere}"


def _snippet(task: Task) -> str:
    """Return Python that prints a model's predictions of new examples."""
    return SNIPPET.replace("FIELDS", repr(_new_example(task)))


def _new_example(task: Task) -> tuple[str | tuple[str, ...], ...]:
    return tuple(
        ("a choice", "another choice") if name == "choices" else f"a {name}" for name in FORMAT_FIELDS[task.format]
    )


def update_card(model: Path, result: Mapping[str, Any], task: Task, epochs: int) -> None:
    """Let the card of a model say what a result has: the figures of all seeds, and of the splits predicted."""
    card = model / "README.md"
    if card.is_file():
        files.write_atomically(card, with_measured(card.read_text("utf-8"), _measured(result, task, epochs)))


def _measured(result: Mapping[str, Any], task: Task, epochs: int) -> dict[str, str]:
    """Return the figures of a card, each with its interval and what chance scores, where they are known."""
    seeds, best = len(result["per_seed"]), best_on_dev(task, result["per_seed"])
    how = f", mean of {seeds} seeds" if seeds > 1 else " (dev chose the epoch)"
    found = {f"dev {name}{how}": _measured_figure(result, name) for name in task.metrics}
    if seeds > 1:
        how = f"of this model, the best of {seeds} seeds on dev, so optimistic"
        found |= {f"dev {name} {how}": shown(name, best["metrics"][name]) for name in task.metrics}
    for split, figures in result.get("predicted", {}).items():
        found |= {f"{split} {name}": _measured_figure(figures, name) for name in figures.get("metrics", ())}
    found["best epoch"] = f"{best['best_epoch']} of {epochs}"
    return found | {"seconds of training": _shown(result["train_seconds"])}


def _measured_figure(result: Mapping[str, Any], metric: str) -> str:
    value, std, interval, chance = _figures(result, metric)
    named = {"standard deviation": std, "95% interval": interval, "chance": chance}
    facts = [f"{name} {fact}" for name, fact in named.items() if fact != "n/a"]
    return ", ".join([f"{value} ({result.get('n_eval', result.get('n')):,} items", *facts]) + ")"


def write_predictions(
    directory: Path, task: Task, split: str, examples: Sequence[Example], logits: NDArray[Any]
) -> tuple[Path, ...]:
    """Write predictions-SPLIT.jsonl and, for a GLUE test split, the file its server takes; return their paths.

    A line has the id, the prediction (a class by name), the label if known, unless the task is a score the probability
    of each class, choice or whole score, with the names of classes and scores, then the texts and where they were read.
    """
    predictions = predictions_of(task, logits).tolist()
    path = directory / f"predictions-{split}.jsonl"
    lines = []
    for example, prediction, chances in zip(examples, predictions, probabilities_of(logits).tolist(), strict=True):
        row = {"id": example.identifier, "prediction": _named(task, prediction)}
        if example.label is not None:
            row["label"] = _named(task, example.label)
        if task.target != "score":
            row["probabilities"] = chances
            if task.target != "choice":
                row["labels"] = output_labels(task)
        row |= zip(FORMAT_FIELDS[task.format], example.fields, strict=False)
        if example.where:
            row["where"] = example.where
        lines.append(json_text(row) + "\n")
    texts = {path: "".join(lines)}
    if task.glue_file and split.startswith("test"):
        # MNLI's two test sets are two files.
        name = task.glue_file.replace("-m.", "-mm.") if split.endswith("mismatched") else task.glue_file
        texts[directory / name] = _glue_text(task, examples, predictions)
    with files.translate_os_errors("writing predictions", fix=AGAIN):
        for path, text in texts.items():
            files.write_atomically(path, text)
    return tuple(texts)


def _named(task: Task, value: Any) -> Any:
    return task.labels[value] if task.target == "class" else value


def _glue_text(task: Task, examples: Sequence[Example], predictions: Sequence[Any]) -> str:
    if task.target == "class":
        spelled = [task.official_labels[prediction] for prediction in predictions]
    else:
        spelled = [f"{prediction:.3f}" for prediction in predictions]
    identifiers = [example.identifier for example in examples]
    if not all(identifier.isdecimal() for identifier in identifiers):  # not GLUE's own files: number them in order
        identifiers = [str(number) for number in range(len(examples))]
    lines = ["index\tprediction", *map("\t".join, zip(identifiers, spelled, strict=True))]
    return "\n".join(lines) + "\n"
