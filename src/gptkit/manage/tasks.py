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

    tasks = list(TASKS.values())
    columns = ("task", "format", "metric", "train", "dev", "test", "GPT-1")
    rows = []
    for task in tasks:
        found = _sizes(task)
        sizes = [f"{found[split]:,}" if split in found else None for split in ("train", "dev", "test")]
        figure = f"{100 * task.published.value:.1f}" if task.published else None
        rows.append((task.name, task.format, task.metrics[0], *sizes, figure))
    console.table("", columns, rows)
    console.table("", ("task", "data"), [(task.name, task.data) for task in tasks])
    protocols = [(name, ", ".join(protocol.name for protocol in row.protocols)) for name, row in EVALUATIONS.items()]
    console.table("", ("for eval", "protocols"), protocols)
    return {"tasks": [_facts(task) for task in tasks]}


def _sizes(task: Task) -> dict[str, int]:
    """Return the examples of each split: as published, or as this Python's documentation makes them."""
    return {split: len(task.make(split)) for split in task.splits} if task.make else dict(task.sizes)


def _facts(task: Task) -> dict[str, Any]:
    """Return what --json prints of a task; GPT-1's figures are in percent."""
    published, hub = task.published, task.hub
    return {
        "name": task.name,
        "format": task.format,
        "labels": list(task.labels),
        "target": task.target,
        "metrics": list(task.metrics),
        "splits": list(task.splits),
        "sizes": _sizes(task),
        "published": published
        and {
            "metric": published.measure,
            "value": round(100 * published.value, 1),
            "source": published.source,
            **{name: task.ablation.get(name) for name in ("full", "no_pretraining", "no_aux")},
            "note": task.note,
        },
        "data": task.data,
        "hub": hub and hub.name,
    }
