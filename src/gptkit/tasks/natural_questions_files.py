"""Natural Questions in their open form (Lee et al. 2019): a question and the short answers that count as right.

NQ-open.dev.jsonl      {"question": "...", "answer": ["...", ...]} a line; the hub's nq_open as parquet likewise
NQ-open.train.jsonl    beside it: its first pairs are shown to the model
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from gptkit.errors import InputError
from gptkit.tasks.cells import text_of
from gptkit.tasks.forms import cell, find_form, form_in, text_cell
from gptkit.tasks.reading import Loaded, loaded
from gptkit.tasks.rows import open_table
from gptkit.text.examples import Example

SHOWN_PAIRS = 5
# Ours, in the style of the data: what people type into a search box, and the shortest answer.
OWN_PAIRS = (
    ("what is the capital of japan", "Tokyo"),
    ("who wrote the play hamlet", "William Shakespeare"),
    ("how many legs does a spider have", "eight"),
    ("when did the first world war begin", "1914"),
    ("what is the chemical symbol for gold", "Au"),
)
FORMS = (
    ("NQ-open.dev.jsonl",),
    ("nq*open*dev*.jsonl",),
    ("validation*.parquet",),
    ("validation*.jsonl",),
    ("dev.jsonl",),
)
TRAIN_FORMS = (("NQ-open.train.jsonl",), ("nq*open*train*.jsonl",), ("train*.parquet",), ("train*.jsonl",))


def natural_questions(data: str | None) -> Loaded:
    """Return the examples (question, accepted answers, shown questions, their answers).

    What is shown comes from the train file, else it is five pairs of ours: a note says so. UsageError without data;
    InputError, with file and line, for whatever is not as it should be.
    """
    source = "google-research-datasets/natural-questions, nq_open"
    [path] = find_form("natural-questions", data, FORMS, source=source)
    rows = [(*_row(row, where), where) for where, row in _open(path)]
    train = form_in(path.parent, TRAIN_FORMS)
    if train:
        first = [_row(row, where) for where, row in islice(_open(train[0]), SHOWN_PAIRS)]
        shown = [(question, answers[0]) for question, answers in first]
    else:
        shown = list(OWN_PAIRS)
    notes = [] if train else ["no train file beside it: the model is shown five pairs of gptkit's own"]
    questions, answers = tuple(one for one, _ in shown), tuple(one for _, one in shown)
    examples = [
        Example((question, accepted, questions, answers), None, where, str(number))
        for number, (question, accepted, where) in enumerate(rows)
    ]
    return loaded(examples, notes)


def _open(path: Path) -> Any:
    if path.suffix not in (".jsonl", ".parquet"):
        raise InputError("neither .jsonl nor .parquet", where=str(path), fix='name a .jsonl of {"question", "answer"}')
    return open_table(path, "parquet" if path.suffix == ".parquet" else "jsonl").rows


def _row(row: dict[str, Any], where: str) -> tuple[str, tuple[str, ...]]:
    answers = cell(row, "answer", where)
    if not isinstance(answers, list) or not answers:
        fix = '"answer" is a list of at least one text'
        raise InputError("'answer' is no list of texts", where=where, fix=fix)
    return text_cell(row, "question", where), tuple(text_of(one, "answer", where) for one in answers)
