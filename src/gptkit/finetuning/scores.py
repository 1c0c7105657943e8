"""Which tasks a fine-tuned model answers, and what its answers are worth, item by item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.data.examples import Example
from gptkit.data.task import Task
from gptkit.data.tasks import TASKS
from gptkit.evaluation.evaluations import find_evaluation
from gptkit.evaluation.protocols import Items, Protocol, Published
from gptkit.evaluation.rows.choices import item_ids
from gptkit.finetuning.inputs import output_labels
from gptkit.finetuning.predictions import predictions_of, probabilities_of

CALIBRATION = ("calibration_error", "accuracy_top_1_percent", "accuracy_top_10_percent")


def head_fits(task: Task, trained_on: str | None, format: str | None, labels: Sequence[str]) -> bool:
    """Return whether a model fine-tuned on `trained_on`, with that format and those outputs, answers this task."""
    if trained_on == task.name:
        return True
    if format != task.format or tuple(labels) != output_labels(task):
        return False
    other = TASKS.get(trained_on or "")
    if other is not None and task.folders and other.folders == task.folders:
        return True
    return "train" not in task.splits or (task.target == "class" and find_evaluation(task.name) is None)


def head_protocol(task: Task, split: str) -> Protocol:
    """Return the protocol of a fine-tuned head's answers: the task's metrics, and for classes its calibration."""
    published: tuple[Published, ...] = ()
    if task.published is not None:
        source = f"{task.published.source}, on test"
        published = (Published("GPT-1", task.published.metric, task.published.value / 100, source),)
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
