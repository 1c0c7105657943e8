"""Natural Questions, open-domain (Lee et al. 2019), answered from memory (GPT-2 paper, section 3.8).

NQ-open.dev.jsonl      one {"question": "...", "answer": ["...", ...]} per line; or the hub's nq_open as parquet
NQ-open.train.jsonl    beside it: its first pairs are the few-shot examples
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from gptkit.errors import InputError
from gptkit.scoring.protocols import Generated, GeneratedProtocol, Items, Published
from gptkit.scoring.written_answers import answer_column, exact_match, question_prompt
from gptkit.tasks.files import cells, checked_text, find_files, first_complete, open_rows
from gptkit.tasks.task import Evaluation, Loaded, loaded
from gptkit.text.examples import Example

FILES = (
    *(("NQ-open.dev.jsonl",), ("nq*open*dev*.jsonl",)),
    *(("validation*.parquet",), ("validation*.jsonl",), ("dev.jsonl",)),
)
TRAIN_FILES = (("NQ-open.train.jsonl",), ("nq*open*train*.jsonl",), ("train*.parquet",), ("train*.jsonl",))
# Our own, in the style of the data: a search query and the shortest answer.
DEFAULT_FEW_SHOT: tuple[tuple[str, str], ...] = (
    ("what is the capital of japan", "Tokyo"),
    ("who wrote the play hamlet", "William Shakespeare"),
    ("how many legs does a spider have", "eight"),
    ("when did the first world war begin", "1914"),
    ("what is the chemical symbol for gold", "Au"),
)
_FIX = 'pass a .jsonl with "question" and "answer"'


def natural_questions(data: str | None) -> Loaded:
    """Return the examples: fields = (question, accepted answers, few-shot questions, their answers).

    Few-shot pairs come from the train file; a note reports that five of gptkit's own stand in for a missing one.
    UsageError without data; InputError, with file and line, for bad files.
    """
    source = "google-research-datasets/natural-questions, nq_open"
    [path] = find_files("natural-questions", data, FILES, source=source)
    few_shot, notes = DEFAULT_FEW_SHOT, ["no train file beside it: using five few-shot pairs of gptkit's own"]
    if train := first_complete([path.parent], TRAIN_FILES):
        first = [_row(row, where) for where, row in islice(open_rows(train[1][0], fix=_FIX), len(few_shot))]
        few_shot, notes = tuple((question, answers[0]) for question, answers in first), []
    questions, answers = zip(*few_shot, strict=True)
    examples = [
        Example((*_row(row, where), questions, answers), None, where, str(number))
        for number, (where, row) in enumerate(open_rows(path, fix=_FIX))
    ]
    return loaded(examples, notes)


def _row(row: dict[str, Any], where: str) -> tuple[str, tuple[str, ...]]:
    question, answers = cells(row, where, "question", "answer")
    if not isinstance(answers, list) or not answers:
        raise InputError("'answer' is not a list of strings", where=where, fix='write "answer": ["...", ...]')
    return checked_text(question, "question", where), tuple(checked_text(answer, "answer", where) for answer in answers)


def matches_any(answer: str, accepted: Sequence[str]) -> float:
    """Return 1 if the answer exactly matches an accepted one, else 0."""
    return max(exact_match(answer, reference) for reference in accepted)


def _prompt(example: Example) -> str:
    question, _, questions, answers = example.fields
    return question_prompt(questions, answers, str(question))


def _items(examples: Sequence[Example], texts: Sequence[Generated]) -> Items:
    exact = answer_column(matches_any, examples, texts, field=1)
    confidence = np.array([text.confidence for text in texts], dtype=np.float64)
    columns = {"exact_match": exact, "correct": exact, "confidence": confidence}
    return Items(tuple(example.identifier for example in examples), columns)


_PAIRS = GeneratedProtocol(
    "pairs",
    "after five questions with answers, greedy, up to the end of the line; exact match with any accepted answer; "
    "confidence is the geometric mean of the generated tokens' probabilities",
    ("exact_match", "accuracy_top_1_percent", "accuracy_top_10_percent", "calibration_error"),
    published=tuple(
        Published("GPT-2 1542M", measure, value, "GPT-2 paper, section 3.8")
        for measure, value in (("exact_match", 0.041), ("accuracy_top_1_percent", 0.631))
    ),
    chance=0.0,
    prompt=_prompt,
    items=_items,
    options={"greedy": True, "max_new_tokens": 32, "stop": ("\n",), "show_probs": True},
)

NATURAL_QUESTIONS = Evaluation(
    "natural-questions",
    natural_questions,
    (_PAIRS,),
    texts=lambda example: (str(example.fields[0]),),
    fields=("question", "accepted answer", "few-shot question", "few-shot answer"),
)

BENCHMARKS = (NATURAL_QUESTIONS,)
