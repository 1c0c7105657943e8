"""Read the labels of examples: class names in any spelling, indices of choices, scores."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from gptkit.errors import InputError
from gptkit.tasks.files import quoted
from gptkit.tasks.task import Columns, Task, may_lack_labels

TO_PREDICT = "to have new rows labelled by a finished run, pass their file to gptkit predict --inputs"
Label = int | float | None
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d*,(\d{1,2}|\d{4,})\s*", re.ASCII)  # 1,234 may be more than a thousand
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf(inity)?)", re.ASCII | re.IGNORECASE)


def label_reader(task: Task, split: str, columns: Columns) -> Callable[[Any, str], Label]:
    """Return a function from a label's cell to the class, choice or score, or None in an unlabelled test split."""
    may_lack = may_lack_labels(split)
    low, high = task.score_range or (-math.inf, math.inf)
    scores = task.target in ("score", "soft-score")
    table = {} if scores else _spellings(task, columns)
    keys = {_key(name): label for name, label in table.items()}
    names = columns.labels or task.labels
    count = len(names) or task.choices

    def label(value: Any, where: str) -> Label:
        if type(value) in (str, int) and value in table:
            return table[value]
        absent = value is None or value == "" or (value != value and not scores)  # NaN is a null of pandas
        if may_lack and (absent or (value in (-1, "-1") and (not scores or low > -1))):
            return None
        if absent:
            fix = f"fill it in, or drop the row; {TO_PREDICT}" if task.is_own else "fill it in, or drop the row"
            raise InputError("no label", where=where, fix=fix)
        if scores:
            return _score(value, low, high, where)
        if type(value) in (str, int, float, bool) and (key := _key(value)) in keys:
            return keys[key]
        if count is None and re.fullmatch(r"\d{1,3}(\.0)?", str(value), re.ASCII):
            return int(float(value))  # checked once the number of choices is known
        known = ", ".join(names or [str(i) for i in range(count or 2)])
        fix = f"write one of {known}" + ", or change the task's labels" * task.is_own
        raise InputError(f"unknown label {quoted(value)}", where=where, fix=fix)

    return label


def _spellings(task: Task, columns: Columns) -> dict[str | int, int]:
    """Return the class or choice of each spelling: the file's own, else the task's names and their indices."""
    names = columns.labels or task.labels
    table: dict[str | int, int] = {name: i for i, name in enumerate(names)}
    if any(name.isdigit() for name in names):
        return table | {int(name): i for i, name in enumerate(names) if name.isdecimal()}
    if columns.labels:
        return table
    indices = range(len(names) or task.choices or 0)
    return table | {str(i): i for i in indices} | {i: i for i in indices}


def _key(value: str | float) -> str | float:
    """Return a key equal for all spellings of a number (1, 1.0, "1.0"), a boolean (false, "False") or an accent."""
    word = unicodedata.normalize("NFC", str(value))
    if type(value) is not bool and re.fullmatch(r"-?\d{1,15}(\.\d+)?", word, re.ASCII):
        return float(value)
    return word.lower() if word.lower() in ("true", "false") else word


def _score(value: Any, low: float, high: float, where: str) -> float:
    if type(value) is str and _DECIMAL_COMMA.fullmatch(value):
        value = value.replace(",", ".")
    is_number = type(value) in (int, float) or (type(value) is str and _NUMBER.fullmatch(value.strip()))
    if not is_number:
        fix = "write a number" + ", with a decimal point" * (type(value) is str and "," in value)
        raise InputError(f"the score is {quoted(value)}, not a number", where=where, fix=fix)
    try:
        score = float(value)
    except OverflowError:  # an integer of hundreds of digits
        score = math.inf
    if not math.isfinite(score) or not low <= score <= high:
        limits = f"between {low:g} and {high:g}" if math.isfinite(low) else "a finite number"
        raise InputError(f"the score {score:g} is out of range", where=where, fix=f"write a score {limits}")
    return score
