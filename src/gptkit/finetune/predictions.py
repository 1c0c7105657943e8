"""From logits to predictions, to the task's metrics, and to the files that carry them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.scoring.metrics import METRICS
from gptkit.system import files
from gptkit.tasks.task import Task
from gptkit.text.examples import Example


def predictions_of(task: Task, logits: NDArray[Any]) -> NDArray[Any]:
    """Return a prediction for each row of `logits` (example, output): the index of a class or choice, or a score.

    A score stays in the task's range; of soft scores it is the mean of the distribution.
    """
    if task.target in ("class", "choice"):
        chosen: NDArray[Any] = logits.argmax(axis=1)
        return chosen
    scores = _mean_scores(probabilities_of(logits)) if task.target == "soft-score" else logits[:, 0].astype(np.float64)
    return scores if task.score_range is None else scores.clip(*task.score_range)


def probabilities_of(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return the softmax of each row of (example, output)."""
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares


def metrics_of(task: Task, logits: NDArray[Any], targets: NDArray[Any] | None) -> dict[str, float]:
    """Return the task's metrics by name, none of them without targets.

    `targets` are what the model was trained on: classes, choices or scores (example,), soft scores (example, score).
    """
    if targets is None:
        return {}
    references = _mean_scores(targets) if task.target == "soft-score" else targets
    predictions = predictions_of(task, logits)
    return {name: METRICS[name](predictions, references) for name in task.metrics}


def write_predictions(
    directory: Path, task: Task, split: str, examples: Sequence[Example], logits: NDArray[Any]
) -> tuple[Path, ...]:
    """Write predictions-SPLIT.jsonl and, for a test split of GLUE, the file that its server takes; return their paths.

    A line has id, prediction (a class by its name), label where it is known, and the probability of each class, choice
    or whole score.
    """
    path = directory / f"predictions-{split}.jsonl"
    texts = {path: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(task, examples, logits))}
    if task.glue_file and split.startswith("test"):
        # MNLI's two test sets are two files.
        name = task.glue_file.replace("-m.", "-mm.") if split.endswith("mismatched") else task.glue_file
        texts[directory / name] = _glue_text(task, examples, logits)
    with files.translate_os_errors("writing predictions", fix="run the command again"):
        for path, text in texts.items():
            files.write_atomically(path, text)
    return tuple(texts)


def _mean_scores(distributions: NDArray[Any]) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = distributions.astype(np.float64) @ np.arange(distributions.shape[1])
    return scores


def _rows(task: Task, examples: Sequence[Example], logits: NDArray[Any]) -> list[dict[str, Any]]:
    predictions, probabilities = predictions_of(task, logits).tolist(), probabilities_of(logits).tolist()
    rows = []
    for example, prediction, shares in zip(examples, predictions, probabilities, strict=True):
        row = {"id": example.identifier, "prediction": _named(task, prediction)}
        if example.label is not None:
            row["label"] = _named(task, example.label)
        if task.target != "score":
            row["probabilities"] = shares
        rows.append(row)
    return rows


def _named(task: Task, value: Any) -> Any:
    return task.labels[value] if task.target == "class" else value


def _glue_text(task: Task, examples: Sequence[Example], logits: NDArray[Any]) -> str:
    predictions = predictions_of(task, logits).tolist()
    if task.target == "class":
        spelled = [task.official_labels[prediction] for prediction in predictions]
    else:
        spelled = [f"{prediction:.3f}" for prediction in predictions]
    identifiers = [example.identifier for example in examples]
    if not all(identifier.isdecimal() for identifier in identifiers):  # a file from elsewhere, in the server's order
        identifiers = [str(number) for number in range(len(examples))]
    lines = ["index\tprediction", *map("\t".join, zip(identifiers, spelled, strict=True))]
    return "\n".join(lines) + "\n"
