"""HellaSwag's validation set as its authors distribute it: hellaswag_val.jsonl."""

from __future__ import annotations

from typing import Any

from gptkit.errors import InputError
from gptkit.tasks.cells import text_of
from gptkit.tasks.forms import cell, find_form, text_cell
from gptkit.tasks.reading import Loaded, loaded
from gptkit.tasks.rows import open_table
from gptkit.text.examples import Example

_ENDINGS = 4


def hellaswag(data: str | None) -> Loaded:
    """Return the examples: fields = (activity label, first part, second part, context, four endings), with label."""
    [path] = find_form("hellaswag", data, [("hellaswag_val.jsonl",)], source="github.com/rowanz/hellaswag, data/")
    rows = enumerate(open_table(path, "jsonl").rows)
    return loaded([_example(row, where, number) for number, (where, row) in rows])


def _example(row: dict[str, Any], where: str, number: int) -> Example:
    texts = [text_cell(row, key, where) for key in ("activity_label", "ctx_a", "ctx")]
    second = cell(row, "ctx_b", where)  # empty where the context is one sentence
    texts.insert(2, text_of(second, "ctx_b", where) if second != "" else "")
    endings, label = cell(row, "endings", where), cell(row, "label", where)
    if not isinstance(endings, list) or len(endings) != _ENDINGS:
        raise InputError("the endings are no list of 4 texts", where=where, fix="fetch the file again")
    choices = tuple([text_of(one, f"ending {i + 1}", where) for i, one in enumerate(endings)])
    if type(label) not in (int, str) or str(label) not in map(str, range(_ENDINGS)):
        raise InputError(f"unknown label {label!r}", where=where, fix="write 0 to 3; the test set has no labels")
    return Example((*texts, choices), int(label), where, str(number))
