"""What one cell of a task's file means: a text, or a label (class, choice or score)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from gptkit.errors import InputError
from gptkit.tasks.task import Columns, Task

Label = int | float | None
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf(inity)?)", re.ASCII | re.IGNORECASE)


def text_of(value: Any, name: str, where: str) -> str:
    if type(value) is not str:
        raise InputError(f"{name!r} is {shown(value)}, not a text", where=where, fix="give a text, or drop the row")
    if not value or value.isspace():
        raise InputError(f"the text {name!r} is empty", where=where, fix="fill it in, or drop the row")
    if "\0" in value or not (value.isascii() or _encodes(value)):
        fix = "mend or drop the row"
        raise InputError(f"{name!r} holds a NUL or a lone surrogate, which is no text", where=where, fix=fix)
    return value


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: Any) -> str:
    return repr(value)[:60] if value is not None else "missing"


def label_reader(task: Task, split: str, columns: Columns) -> Callable[[Any, str], Label]:
    """Return the function from a label's cell to the class, choice or score; None where a test split has none."""
    may_lack = split.startswith("test")
    low, high = task.score_range or (-math.inf, math.inf)
    scores = task.target in ("score", "soft-score")
    table = {} if scores else _spellings(task, columns)
    names = columns.labels or task.labels
    count = len(names) or task.choices

    def label(value: Any, where: str) -> Label:
        if type(value) is bool:  # JSON and parquet have true and false of their own
            value = next((name for name in names if name.lower() == str(value).lower()), value)
        if type(value) in (str, int) and value in table:
            return table[value]
        absent = value is None or value == ""
        if may_lack and (absent or (value in (-1, "-1") and (not scores or low > -1))):
            return None
        if absent:
            raise InputError("no label", where=where, fix="fill it in, or drop the row")
        if scores:
            return _score(value, low, high, where)
        if count is None and re.fullmatch(r"\d{1,3}", str(value), re.ASCII) and type(value) in (str, int):
            return int(value)  # as many choices as the examples have
        known = ", ".join(names or [str(i) for i in range(count or 2)])
        raise InputError(f"unknown label {shown(value)}", where=where, fix=f"write one of {known}")

    return label


def _spellings(task: Task, columns: Columns) -> dict[str | int, int]:
    """Return what stands for each class or choice: the file's spelling, else the task's names and their indices."""
    names = columns.labels or task.labels
    table: dict[str | int, int] = {name: i for i, name in enumerate(names)}
    if any(name.isdigit() for name in names):
        return table | {int(name): i for i, name in enumerate(names) if name.isdecimal()}
    if columns.labels:
        return table
    indices = range(len(names) or task.choices or 0)
    return table | {str(i): i for i in indices} | {i: i for i in indices}


def _score(value: Any, low: float, high: float, where: str) -> float:
    is_number = type(value) in (int, float) or (type(value) is str and _NUMBER.fullmatch(value.strip()))
    if not is_number:
        raise InputError(f"the score is {shown(value)}, not a number", where=where, fix="write a number")
    try:
        score = float(value)
    except OverflowError:  # an integer of hundreds of digits
        score = math.inf
    if not math.isfinite(score) or not low <= score <= high:
        limits = f"between {low:g} and {high:g}" if math.isfinite(low) else "a finite number"
        raise InputError(f"the score {score:g} is out of range", where=where, fix=f"it must be {limits}")
    return score
