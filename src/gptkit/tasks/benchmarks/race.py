"""RACE: English exams for middle and high school students, for fine-tuning and zero-shot (GPT-1, section 5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptkit.errors import InputError
from gptkit.scoring.choices import ChoiceProtocol, ending_pairs, per_token
from gptkit.system.reading import json_object
from gptkit.tasks.files import JSON_FIX, lines
from gptkit.tasks.reading import zero_shot
from gptkit.tasks.task import SPLITS, Columns, Evaluation, HubSource, Source, Task, best_before_gpt1, counts, gpt1

ORDER = 6

_HUB = Columns(("article", "question", "options"), "answer", tuple("ABCD"))
_COLUMNS = Columns(_HUB.fields, "answer", _HUB.labels, "id")


def _questions(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a row for each question on the passages in a folder of RACE, in the order of the file numbers."""
    for path in sorted(folder.glob("*.txt"), key=lambda path: (len(path.stem), path.stem)):
        passage = json_object("\n".join(text for _, text in lines(path)), f"{path}:1", JSON_FIX)
        columns = [passage.get(key) for key in ("questions", "options", "answers")]
        if not all(isinstance(column, list) and len(column) == len(columns[0] or ()) for column in columns):
            fix = "give every question its options and its answer"
            raise InputError("questions, options and answers are not lists of equal length", where=f"{path}:1", fix=fix)
        for i, (question, options, answer) in enumerate(zip(*columns, strict=True)):
            row = {"article": passage.get("article"), "question": question, "options": options, "answer": answer}
            yield f"{path}:1, question {i + 1}", row | {"id": f"{folder.name}{path.stem}-{i + 1}"}


def _task(name: str, levels: tuple[str, ...], sizes: dict[str, int], accuracy: float) -> Task:
    return Task(
        name,
        "multiple-choice",
        "www.cs.cmu.edu/~glai1/data/race",
        {split: (Source(tuple(f"{split}/{level}/" for level in levels), _questions, _COLUMNS),) for split in SPLITS},
        choices=4,
        hub=HubSource("ehovy/race", name.partition("-")[2] or "all", _HUB),
        sizes=sizes,
        published=gpt1("accuracy", accuracy, 3),
        folders=("RACE",),
    )


def _evaluation(task: Task, best: float) -> Evaluation:
    protocol = ChoiceProtocol(
        "gpt1",
        "the answer's mean log-probability per token after the passage and the question",
        published=best_before_gpt1(best, "GPT-1 paper, table 3 (ensemble of 9 models)"),
        chance=1 / 4,
        pairs=ending_pairs,
        score=per_token,
    )
    return zero_shot(task, "test", protocol)


RACE = (
    _task("race", ("middle", "high"), counts(87866, 4887, 4934), 59.0),
    _task("race-middle", ("middle",), counts(25421, 1436, 1436), 62.9),
    _task("race-high", ("high",), counts(62445, 3451, 3498), 57.4),
)

BENCHMARKS = (*RACE, *map(_evaluation, RACE, (0.533, 0.602, 0.503)))
