"""The files that carry a model's predictions of a split: our lines, and what the GLUE server takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gptkit.system import files
from gptkit.tasks.heads import predictions_of, probabilities_of
from gptkit.tasks.task import Task
from gptkit.text.examples import Example


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
