"""RACE: English examinations for middle and high schools; fine-tuned, and zero-shot (GPT-1, section 5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptkit.errors import InputError
from gptkit.scoring.choices import ChoiceProtocol, ending_pairs, per_token
from gptkit.system.reading import json_object
from gptkit.tasks.files import JSON_FIX, lines
from gptkit.tasks.reading import zero_shot
from gptkit.tasks.task import Columns, Evaluation, HubSource, Source, Task, best_before_gpt1, counts, gpt1

ORDER = 6

_HUB = Columns(("article", "question", "options"), "answer", tuple("ABCD"))
_COLUMNS = Columns(_HUB.fields, "answer", _HUB.labels, "id")


def _questions(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a row for each question of the passages in RACE's folder, by the numbers of its files."""
    for path in sorted(folder.glob("*.txt"), key=lambda path: (len(path.stem), path.stem)):
        passage = json_object("\n".join(text for _, text in lines(path)), f"{path}:1", JSON_FIX)
        columns = [passage.get(key) for key in ("questions", "options", "answers")]
        if not all(isinstance(column, list) and len(column) == len(columns[0] or ()) for column in columns):
            fix = "a passage has as many questions as options and answers"
            raise InputError("questions, options and answers are no lists of one length", where=f"{path}:1", fix=fix)
        for i, (question, options, answer) in enumerate(zip(*columns, strict=True)):
            row = {"article": passage.get("article"), "question": question, "options": options, "answer": answer}
            yield f"{path}:1, question {i + 1}", row | {"id": f"{folder.name}{path.stem}-{i + 1}"}


def _task(name: str, levels: tuple[str, ...], sizes: dict[str, int], accuracy: float) -> Task:
    return Task(
        name,
        "multiple-choice",
        "www.cs.cmu.edu/~glai1/data/race",
        {
            split: (Source(tuple(f"{split}/{level}/" for level in levels), _questions, _COLUMNS),)
            for split in ("train", "dev", "test")
        },
        choices=4,
        hub=HubSource("ehovy/race", name.partition("-")[2] or "all", _HUB),
        sizes=sizes,
        published=gpt1("accuracy", accuracy, 3),
        folders=("RACE",),
    )


def _zero_shot(task: Task, best: float) -> Evaluation:
    protocol = ChoiceProtocol(
        "gpt1",
        "the answer after document and question, the mean over its tokens",
        published=best_before_gpt1(best, "GPT-1 paper, table 3 (9 models together)"),
        chance=1 / 4,
        pairs=ending_pairs,
        score=per_token,
    )
    return zero_shot(task, "test", "examination questions on a passage", protocol)


RACE = _task("race", ("middle", "high"), counts(87866, 4887, 4934), 59.0)
MIDDLE = _task("race-middle", ("middle",), counts(25421, 1436, 1436), 62.9)
HIGH = _task("race-high", ("high",), counts(62445, 3451, 3498), 57.4)

BENCHMARKS = (RACE, MIDDLE, HIGH, _zero_shot(RACE, 0.533), _zero_shot(MIDDLE, 0.602), _zero_shot(HIGH, 0.503))
