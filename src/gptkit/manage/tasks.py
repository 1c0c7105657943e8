"""`gptkit tasks`: list the tasks of finetune and the protocols of eval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gptkit.console import Console
from gptkit.options import OutputOptions

if TYPE_CHECKING:
    from gptkit.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class TasksOptions(OutputOptions):
    """List the fine-tuning tasks with their format, metric, sizes and data source, and the protocols of eval."""


def run(options: TasksOptions, console: Console) -> dict[str, Any]:
    """Print a table of the tasks with GPT-1's score in percent, their data sources, and the protocols of eval."""
    from gptkit.tasks.table import EVALUATIONS, TASKS

    tasks = [_facts(task) for task in TASKS.values()]
    rows = []
    for task in tasks:
        sizes = [f"{task['sizes'][split]:,}" if split in task["sizes"] else None for split in ("train", "dev", "test")]
        score = task["published"] and f"{task['published']['value']:.1f}"
        rows.append((task["name"], task["format"], task["metrics"][0], *sizes, score))
    console.table("", ("task", "format", "metric", "train", "dev", "test", "GPT-1"), rows)
    console.table("", ("task", "data"), [(task["name"], task["data"]) for task in tasks])
    protocols = [(name, ", ".join(protocol.name for protocol in row.protocols)) for name, row in EVALUATIONS.items()]
    console.table("", ("eval task", "protocols"), protocols)
    return {"tasks": tasks}


def _facts(task: Task) -> dict[str, Any]:
    """Return what --json prints of a task; sizes are as published, or counted where the examples are generated."""
    published, hub = task.published, task.hub
    return {
        "name": task.name,
        "format": task.format,
        "labels": list(task.labels),
        "target": task.target,
        "metrics": list(task.metrics),
        "splits": list(task.splits),
        "sizes": {split: len(task.make(split)) for split in task.splits} if task.make else dict(task.sizes),
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
