"""What fine-tuning tells: results of seeds and studies as tables, and the files for people to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gptkit
from gptkit.finetune.job import FinetuneRun
from gptkit.report.model_card import ModelCard, describe_shape, versions
from gptkit.tasks.formats import FORMAT_FIELDS
from gptkit.tasks.own import TASK_FILE
from gptkit.tasks.task import Task
from gptkit.text.embedded import LICENCE
from gptkit.training.checkpoints import RunState
from gptkit.training.rules import Choices

# The rows of the paper's table 5.
VARIANT_TITLES = {
    "full": "full (aux LM)",
    "no_aux": "no aux LM",
    "no_pretraining": "no pre-training",
}


def run_result(run: FinetuneRun, path: Path, best: Mapping[str, Any], finish: RunState, **more: Any) -> dict[str, Any]:
    """Return what one run came to; `best` is the row of its best step, which is the one that the model keeps."""
    options, inputs = run.options, run.inputs
    assert finish.best_step is not None
    return {
        "run_dir": str(path),
        "model_dir": str(path / "model"),
        "task": inputs.task.name,
        "model": inputs.model_name,
        "metrics": {name: best[name] for name in inputs.task.metrics},
        "val_loss": best["val_loss"],
        "best_step": finish.best_step,
        "best_epoch": -(-finish.best_step // run.steps_per_epoch),
        "lm_coef": options.lm_coef,
        "transfer_layers": options.transfer_layers,
        "n_train": len(inputs.train),
        "n_eval": len(inputs.dev),
        "steps": finish.step,
        "tokens": finish.tokens,
        "tokens_per_second": finish.tokens_per_second,
        "train_seconds": finish.train_seconds,
        **more,
        "data_sha256": inputs.identity["data_sha256"],
        "seed": options.seed,
        "version": gptkit.__version__,
    }


def metrics_table(task: Task, result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return (metric, dev value, standard deviation, interval, published value) of a result, in percent."""
    return [
        (
            name,
            shown(result["metrics"][name], 100),
            shown(result.get("std", {}).get(name), 100),
            shown_interval(result.get("interval", {}).get(name), 100),
            published(task, name),
        )
        for name in task.metrics
    ]


def ablation_table(task: Task, result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row a variant, in percent: the paper's value, ours, deviation, interval, and what `full` gains on it."""
    metric = task.metrics[0]
    rows: list[tuple[str, ...]] = []
    for variant, ours in result["variants"].items():
        gain = result["full_minus"].get(variant, {})
        rows.append(
            (
                VARIANT_TITLES[variant],
                shown(task.ablation.get(variant)),
                shown(ours["metrics"][metric], 100),
                shown(ours.get("std", {}).get(metric), 100),
                shown_interval(ours.get("interval", {}).get(metric), 100),
                shown(gain.get("mean"), 100),
                shown_interval(gain.get("interval"), 100),
            )
        )
    return rows


def published(task: Task, metric: str) -> str:
    """Return what the paper reports for the metric on the test set, with its place, as far as it does."""
    if task.published is None or task.published.measure != metric:
        return "n/a"
    facts = [task.published.source, *filter(None, [task.note])]
    return f"{round(100 * task.published.value, 1):g} ({'; '.join(facts)})"


def shown(value: float | None, scale: float = 1.0) -> str:
    return "n/a" if value is None else f"{scale * value:.4g}"


def shown_interval(interval: Sequence[float] | None, scale: float = 1.0) -> str:
    return "n/a" if interval is None else " to ".join(shown(end, scale) for end in interval)


def _task_facts(task: Task) -> dict[str, str]:
    """Return what a fine-tuned model reads and answers, in words."""
    score = "a score" if task.score_range is None else "a score from {:g} to {:g}".format(*task.score_range)
    answers = {"class": f"one of {', '.join(task.labels)}", "choice": "the index of a choice, from 0"}
    return {
        "name": task.name,
        "format": task.format,
        "reads": ", ".join(FORMAT_FIELDS[task.format]),
        "answers": answers.get(task.target, score),
        "metrics": ", ".join(task.metrics),
        "described by": TASK_FILE if task.is_own else "gptkit tasks",
    }


def model_card(run: FinetuneRun, choices: Choices, result: Mapping[str, Any], *, command: str) -> ModelCard:
    """Return the card of a fine-tuned model."""
    options, inputs, task = run.options, run.inputs, run.inputs.task
    start = "fresh weights" if options.transfer_layers == "none" else f"the weights of {inputs.model_name}"
    metrics = {f"dev {name}": shown(value) for name, value in result["metrics"].items()}
    return ModelCard(
        name=Path(str(result["run_dir"])).name,
        summary=f"A GPT fine-tuned on {task.name} ({task.format}) with gptkit {gptkit.__version__}, from {start}.",
        kind="text-classification",
        parameters=run.model.num_parameters(),
        shape=describe_shape(run.model.config),
        data=f"{task.name}: {len(inputs.train):,} examples to train on, {len(inputs.dev):,} for dev; {task.data}",
        data_sha256=inputs.identity["data_sha256"],
        licence=LICENCE if task.is_demo else f"the data set's own: see {task.data}",
        tokenizer=f"{len(inputs.tokenizer):,} entries, of {inputs.model_name}",
        command=command,
        use="gptkit eval --model ." + " --data DIR" * (not task.is_demo),
        task=_task_facts(task),
        limits="It knows what its training examples show: measure it on yours before you trust it.",
        measured={
            **metrics,
            "best epoch": f"{result['best_epoch']} of {options.epochs}",
            "seconds of training": shown(result["train_seconds"]),
        },
        versions=versions(choices.facts()),
    )
