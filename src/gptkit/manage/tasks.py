"""`gptkit tasks`: list the tasks that finetune knows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gptkit.console import Console
from gptkit.options import OutputOptions

if TYPE_CHECKING:
    from gptkit.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class TasksOptions(OutputOptions):
    """List the tasks to fine-tune on."""


def run(options: TasksOptions, console: Console) -> dict[str, Any]:
    """Print what every task is, with GPT-1's figure in percent, and where its data come from."""
    from gptkit.tasks.table import TASKS

    columns = ("task", "format", "metric", "train", "dev", "test", "GPT-1")
    console.table("", columns, [_row(task) for task in TASKS.values()])
    console.table("", ("task", "data"), [(task.name, task.data) for task in TASKS.values()])
    return {"tasks": [_facts(task) for task in TASKS.values()]}


def _row(task: Task) -> tuple[object, ...]:
    found = sizes_of(task)
    sizes = [f"{found[split]:,}" if split in found else None for split in ("train", "dev", "test")]
    figure = f"{task.published.value:.1f}" if task.published else None
    return task.name, task.format, task.metrics[0], *sizes, figure


def sizes_of(task: Task) -> dict[str, int]:
    """Return the examples of each split: as published, or as this Python's documentation makes them."""
    from gptkit.tasks.demo import demo_examples

    if task.is_demo:
        return {split: len(demo_examples(task.name, split)) for split in task.splits}
    return dict(task.sizes)


def _facts(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "format": task.format,
        "labels": list(task.labels),
        "target": task.target,
        "metrics": list(task.metrics),
        "splits": list(task.splits),
        "sizes": sizes_of(task),
        "published": dataclasses.asdict(task.published) if task.published else None,
        "data": task.data,
        "hub": f"hf:{task.hub.path}" + f":{task.hub.configuration}" * bool(task.hub.configuration)
        if task.hub
        else None,
    }
