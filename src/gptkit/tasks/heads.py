"""Which tasks a fine-tuned model answers, and what its answers are worth, item by item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import InputError, UsageError
from gptkit.finetune.inputs import output_labels
from gptkit.finetune.predictions import predictions_of, probabilities_of
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.scoring.choices import item_ids
from gptkit.scoring.protocols import Items, Protocol, Published
from gptkit.tasks.own import TASK_FILE, carried_task
from gptkit.tasks.table import TASKS, find_evaluation
from gptkit.tasks.task import Task
from gptkit.text.examples import Example

CALIBRATION = ("calibration_error", "accuracy_top_1_percent", "accuracy_top_10_percent")


def own_task(directory: Path, config: GPTConfig) -> Task:
    """Return the task that a fine-tuned model carries, or knows by a name of gptkit's own.

    UsageError where its directory describes none, InputError where it contradicts its config.json.
    """
    task = carried_task(directory) or TASKS.get(config.task or "")
    if task is None:
        message = f"the model was fine-tuned on {config.task}, which its directory does not describe"
        raise UsageError(message, where=str(directory), fix="name the task's file: --task FILE.yaml")
    difference = head_difference(task, config.format, head_labels(config))
    if task.name != config.task:
        difference = f"it describes {task.name!r}, the model was fine-tuned on {config.task!r}"
    if difference is not None:
        where = directory / (TASK_FILE if task.is_own else "config.json")
        fix = f"copy the model again; a {TASK_FILE} made by hand: correct or remove it"
        raise InputError(f"the task does not fit the model's head: {difference}", where=str(where), fix=fix)
    return task


def head_labels(config: GPTConfig) -> tuple[str, ...]:
    """Return the names of a fine-tuned model's outputs."""
    return tuple((config.id2label or {}).values())


def head_difference(
    task: Task, format: str | None, labels: Sequence[str], score_range: tuple[float, float] | None = None
) -> str | None:
    """Return in words how a task differs from what a head answers, None if it does not.

    `score_range` is that of the head's scores, None if it is not known.
    """
    if format != task.format:
        return f"its format is {task.format}, the model's {format}"
    if tuple(labels) != output_labels(task):
        return f"its labels are {list(output_labels(task))}, the model's {list(labels)}"
    if score_range is not None and task.score_range != score_range:
        return f"its score_range is {list(task.score_range or ())}, the model's {list(score_range)}"
    return None


def head_fits(task: Task, trained_on: str | None, format: str | None, labels: Sequence[str]) -> bool:
    """Return whether a model fine-tuned on `trained_on`, with that format and those outputs, answers this task."""
    if head_difference(task, format, labels) is not None:
        return False
    if trained_on == task.name:
        return True
    other = TASKS.get(trained_on or "")
    if other is not None and task.folders and other.folders == task.folders:
        return True
    return "train" not in task.splits or (task.target == "class" and find_evaluation(task.name) is None)


def head_protocol(task: Task, split: str) -> Protocol:
    """Return the protocol of a fine-tuned head's answers: the task's metrics, and for classes its calibration."""
    published: tuple[Published, ...] = ()
    if task.published is not None:
        source = f"{task.published.source}, on test"
        published = (replace(task.published, source=source),)
    return Protocol(
        "fine-tuned",
        f"the answers of the model's own head to the {split} split",
        (*task.metrics, *(CALIBRATION if _has_classes(task) else ())),
        gated=len(task.metrics),
        published=published,
    )


def items_of_logits(task: Task, examples: Sequence[Example], logits: NDArray[Any]) -> Items:
    """Return the columns of labelled examples, from logits (example, output)."""
    predictions = predictions_of(task, logits).astype(np.float64)
    references = np.array([one.label for one in examples], np.float64)
    columns = {"prediction": predictions, "reference": references}
    if _has_classes(task):
        columns |= {
            "correct": (predictions == references).astype(np.float64),
            "confidence": probabilities_of(logits).max(axis=1),
        }
    return Items(item_ids(examples), columns)


def _has_classes(task: Task) -> bool:
    return task.target in ("class", "choice")
