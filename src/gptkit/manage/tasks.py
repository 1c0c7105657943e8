"""`gptkit tasks`: list the tasks that finetune knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gptkit.console import Console
from gptkit.options import OutputOptions

if TYPE_CHECKING:
    from gptkit.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class TasksOptions(OutputOptions):
    """List the tasks to fine-tune on: format, metric, sizes, source of the data; and the protocols of eval."""


def run(options: TasksOptions, console: Console) -> dict[str, Any]:
    """Print what every task is, with GPT-1's figure in percent, and where its data come from."""
    from gptkit.tasks.table import EVALUATIONS, TASKS

    columns = ("task", "format", "metric", "train", "dev", "test", "GPT-1")
    console.table("", columns, [_row(task) for task in TASKS.values()])
    console.table("", ("task", "data"), [(task.name, task.data) for task in TASKS.values()])
    protocols = [(name, ", ".join(protocol.name for protocol in row.protocols)) for name, row in EVALUATIONS.items()]
    console.table("", ("for eval", "protocols"), protocols)
    return {"tasks": [_facts(task) for task in TASKS.values()]}


def _row(task: Task) -> tuple[object, ...]:
    found = _sizes(task)
    sizes = [f"{found[split]:,}" if split in found else None for split in ("train", "dev", "test")]
    figure = f"{100 * task.published.value:.1f}" if task.published else None
    return task.name, task.format, task.metrics[0], *sizes, figure


def _sizes(task: Task) -> dict[str, int]:
    """Return the examples of each split: as published, or as this Python's documentation makes them."""
    return {split: len(task.make(split)) for split in task.splits} if task.make else dict(task.sizes)


def _published(task: Task) -> dict[str, Any] | None:
    """Return GPT-1's figures in percent."""
    if task.published is None:
        return None
    figure = {
        "metric": task.published.measure,
        "value": round(100 * task.published.value, 1),
        "source": task.published.source,
    }
    return (
        figure | {name: task.ablation.get(name) for name in ("full", "no_pretraining", "no_aux")} | {"note": task.note}
    )


def _facts(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "format": task.format,
        "labels": list(task.labels),
        "target": task.target,
        "metrics": list(task.metrics),
        "splits": list(task.splits),
        "sizes": _sizes(task),
        "published": _published(task),
        "data": task.data,
        "hub": f"hf:{task.hub.path}" + f":{task.hub.configuration}" * bool(task.hub.configuration)
        if task.hub
        else None,
    }
