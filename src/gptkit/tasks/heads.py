"""The head of a fine-tuned model: which tasks it fits, its predictions and metrics; head_outputs.py runs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import InputError, UsageError
from gptkit.model_files import MASKED, model_type
from gptkit.scoring.choices import item_ids
from gptkit.scoring.protocols import Items, Protocol
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import described_in
from gptkit.tasks.encoding import HIGHEST_SCORE
from gptkit.tasks.own import TASK_FILE, carried_task
from gptkit.tasks.table import TASKS, find_evaluation
from gptkit.tasks.task import Task
from gptkit.text.examples import Example

UNINFORMED = {"matthews": 0.0, "pearson": 0.0, "spearman": 0.0}  # what a head scores that knows nothing
MOST_FREQUENT = "chance: always the most frequent class"
CALIBRATION = ("calibration_error", "accuracy_top_1_percent", "accuracy_top_10_percent")


def output_labels(task: Task) -> tuple[str, ...]:
    """Return the names of a head's outputs: classes, whole scores (soft scores), or a single score (per choice)."""
    if task.target == "class":
        return task.labels
    if task.target == "soft-score":
        return tuple(str(score) for score in range(HIGHEST_SCORE + 1))
    return ("score",)


def predictions_of(task: Task, logits: NDArray[Any]) -> NDArray[Any]:
    """Return the predictions (example,) from logits (example, output): indices of classes or choices, or scores.

    Scores are clipped to the task's range; with soft scores, they are the means of the distributions.
    """
    if task.target in ("class", "choice"):
        chosen: NDArray[Any] = logits.argmax(axis=1)
        return chosen
    scores = _mean_scores(probabilities_of(logits)) if task.target == "soft-score" else logits[:, 0].astype(np.float64)
    return scores if task.score_range is None else scores.clip(*task.score_range)


def probabilities_of(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return the softmax of each row of (example, output)."""
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def metrics_of(task: Task, logits: NDArray[Any], targets: NDArray[Any] | None) -> dict[str, float]:
    """Return the task's metrics by name, or nothing without targets.

    `targets` are those of EncodedExamples: classes, choices or scores (example,), soft scores (example, score).
    """
    if targets is None:
        return {}
    references = _mean_scores(targets) if task.target == "soft-score" else targets
    return task_metrics(task, predictions_of(task, logits), references)


def task_metrics(task: Task, predictions: NDArray[Any], references: NDArray[Any]) -> dict[str, float]:
    """Return the task's metrics by name, as reported by fine-tuning and by `gptkit eval` of a head."""
    from gptkit.scoring.metrics import compute  # a slow import

    return {name: compute(name, predictions, references) for name in task.metrics}


def _mean_scores(distributions: NDArray[Any]) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = distributions.astype(np.float64) @ np.arange(distributions.shape[1])
    return scores


@dataclass(frozen=True)
class Head:
    """What config.json in a model's directory says of its fine-tuned head; `format` is None for a language model."""

    directory: Path
    task: str | None
    format: str | None
    labels: tuple[str, ...]  # of its outputs
    is_masked: bool = False  # whether the model predicts masked tokens, and not the next one

    @classmethod
    def of(cls, directory: Path) -> Head:
        raw = read_json_object(described_in(directory) / "config.json")
        task, format = (raw[key] if isinstance(raw.get(key), str) else None for key in ("task", "format"))
        labels = raw["id2label"].values() if isinstance(raw.get("id2label"), dict) else ()
        return cls(directory, task, format, tuple(map(str, labels)), model_type(raw) == MASKED)

    def difference_from(self, task: Task) -> str | None:
        """Describe how a task differs from the one that the head answers; None if it does not."""
        trained_on = None
        if task.target == "score":
            trained_on = carried_task(self.directory) or TASKS.get(self.task or "")
        score_range = None if trained_on is None else trained_on.score_range
        return head_difference(task, self.format, self.labels, score_range)

    def answers(self, task: Task) -> bool:
        """Return whether the model was fine-tuned on this task, or on a related one with the same outputs.

        Related: from the same data folder (RACE's three tasks), or `task` is for evaluation only.
        """
        return head_fits(task, self.task, self.format, self.labels) and self.difference_from(task) is None

    def own_task(self) -> Task:
        """Return the task that the model was fine-tuned on: described in its directory, or built in.

        UsageError if it is neither, InputError if the description contradicts config.json.
        """
        task = carried_task(self.directory) or TASKS.get(self.task or "")
        if task is None:
            message = f"the model was fine-tuned on {self.task}, which its directory does not describe"
            raise UsageError(message, where=str(self.directory), fix="pass the task's file: --task FILE.yaml")
        difference = head_difference(task, self.format, self.labels)
        if task.name != self.task:
            difference = f"it describes {task.name!r}, but the model was fine-tuned on {self.task!r}"
        if difference is not None:
            where = self.directory / (TASK_FILE if task.is_own else "config.json")
            fix = f"copy the model again, or correct or remove its {TASK_FILE}"
            raise InputError(f"the task does not fit the model's head: {difference}", where=str(where), fix=fix)
        return task


def head_difference(
    task: Task, format: str | None, labels: Sequence[str], score_range: tuple[float, float] | None = None
) -> str | None:
    """Return a phrase for how a task differs from the one a head was trained for, None if it fits.

    `score_range` is the range of the head's scores, None if unknown.
    """
    if format != task.format:
        return f"its format is {task.format}, but the model's is {format}"
    if tuple(labels) != output_labels(task):
        return f"its labels are {list(output_labels(task))}, but the model's are {list(labels)}"
    if score_range is not None and task.score_range != score_range:
        return f"its score_range is {list(task.score_range or ())}, but the model's is {list(score_range)}"
    return None


def head_fits(task: Task, trained_on: str | None, format: str | None, labels: Sequence[str]) -> bool:
    """Return whether a model fine-tuned on `trained_on`, with this format and these outputs, can answer this task."""
    if head_difference(task, format, labels) is not None:
        return False
    if trained_on == task.name:
        return True
    other = TASKS.get(trained_on or "")
    if other is not None and task.folders and other.folders == task.folders:
        return True
    return "train" not in task.splits or (task.target == "class" and find_evaluation(task.name) is None)


@dataclass(frozen=True)
class HeadProtocol(Protocol):
    """Score the predictions of a fine-tuned head."""

    task: Task = field(kw_only=True)


def head_protocol(task: Task, source: str) -> HeadProtocol:
    """Return the protocol for a fine-tuned head: the task's metrics, and for classes and choices its calibration."""
    figure = task.published
    published = (replace(figure, source=f"{figure.source}, on test"),) if figure else ()
    return HeadProtocol(
        "fine-tuned",
        f"predictions of the model's fine-tuned head on {source}",
        (*task.metrics, *(CALIBRATION if _has_classes(task) else ())),
        gated=len(task.metrics),
        published=published,
        masked=None,
        task=task,
    )


def items_of_logits(task: Task, examples: Sequence[Example], logits: NDArray[Any]) -> Items:
    """Return the scored items of labelled examples, given their logits (example, output)."""
    predictions = predictions_of(task, logits).astype(np.float64)
    references = np.array([example.label for example in examples], np.float64)
    columns, undefined = {"prediction": predictions, "reference": references}, {}
    if task.target == "class":
        indices = {name: {*map(int, column)} for name, column in columns.items()}
        alike = [f"all {name}s are {task.labels[min(own)]!r}" for name, own in indices.items() if len(own) == 1]
        undefined = {"matthews": " and ".join(alike)} if alike else {}
    if _has_classes(task):
        columns |= {
            "correct": (predictions == references).astype(np.float64),
            "confidence": probabilities_of(logits).max(axis=1),
        }
    return Items(item_ids(examples), columns, undefined=undefined)


def chance_of(task: Task, examples: Sequence[Example]) -> Mapping[str, float]:
    """Return what a head that knows nothing scores on labelled examples, by metric where it is known."""
    if task.target == "choice":
        return {"accuracy": 1 / len(examples[0].fields[-1])}
    if task.target != "class":
        return UNINFORMED
    counts = Counter(example.label for example in examples)
    return {**UNINFORMED, "accuracy": max(counts.values()) / len(examples)}


def _has_classes(task: Task) -> bool:
    return task.target in ("class", "choice")
