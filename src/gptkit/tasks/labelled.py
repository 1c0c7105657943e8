"""Examples out of a task's files: the columns that a file has, and every row checked.

A file is the authors' own, or a generic one whose columns are named like the format's fields, `label` and perhaps
`index`: text; premise, hypothesis; first, second; context, question, choices (in .csv and .tsv choice1, choice2, ...).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from gptkit.errors import InputError, nearest
from gptkit.tasks.cells import label_reader, text_of
from gptkit.tasks.formats import FORMAT_FIELDS
from gptkit.tasks.rows import Table, lines, open_table, refuse_repeated
from gptkit.tasks.task import Column, Columns, Source, Task
from gptkit.text.examples import Example

IDENTIFIERS = ("index", "idx", "id")

Text = str | tuple[str, ...]


def read_examples(task: Task, split: str, source: Source, paths: Sequence[Path]) -> tuple[list[Example], list[str]]:
    """Return the examples of a split and notes on the rows that were dropped.

    Raises InputError, with file and line, for whatever is not as it should be.
    """
    examples: list[Example] = []
    notes: list[str] = []
    for path in paths:
        more, dropped = table_examples(task, split, source, open_table(path, source.kind), first=len(examples))
        examples += more
        notes += [f"{path}: {note}" for note in dropped]
    return _part(source, paths[0], examples), notes


@dataclass
class _Dropped:
    """How many rows were left out, and where the first one of each kind stood."""

    unlabelled: int = 0
    broken: int = 0
    first: str = ""

    def notes(self) -> list[str]:
        counts = {"without a gold label": self.unlabelled, f"broken (the first: {self.first})": self.broken}
        return [f"dropped {count:,} row(s) {what}" for what, count in counts.items() if count]


def table_examples(
    task: Task, split: str, source: Source, table: Table, *, first: int = 0
) -> tuple[list[Example], list[str]]:
    """Return the examples of one file, numbered from `first`, and notes."""
    columns, generic = _columns(task, split, source, table)
    keys = _Keys(table, columns)
    makers = _field_makers(task, columns, keys)
    label_of = label_reader(task, split, columns)
    label_slot = None if columns.label is None else keys.slot(columns.label)
    name_of = _identifier(columns, keys)
    values_of = _row_reader(source, table, keys, strict=generic)
    dropped, examples = _Dropped(), []
    headerless = source.width > 0 and not generic
    for number, (where, row) in enumerate(table.with_first_line() if headerless else table.rows, first):
        values = values_of(row, where)
        if values is None or (source.broken and not all(map(str.strip, values))):
            dropped.broken += 1
            dropped.first = dropped.first or where
            continue
        if columns.no_gold is not None and label_slot is not None and values[label_slot] == columns.no_gold:
            dropped.unlabelled += 1
            continue
        fields = tuple([make(values, where) for make in makers])
        label = None if label_slot is None else label_of(values[label_slot], where)
        examples.append(Example(fields, label, where, name_of(values) or str(number)))
    _check_split(task, examples, table)
    return examples, dropped.notes()


def _columns(task: Task, split: str, source: Source, table: Table) -> tuple[Columns, bool]:
    """Return where the file keeps what, and whether it is a generic file."""
    own = task.is_own and source.columns is not None
    generic = None if own else _generic_columns(task, table)
    if generic is not None:
        refuse_repeated(table.names, table.names_at)
        return _with_label(task, split, generic, table), True
    official = source.columns or _hub_columns(task, split, table)
    if source.width:
        return official, False
    refuse_repeated(table.names, table.names_at)
    if own:
        official = _with_label(task, split, official, table)
    elif source.columns is not None and table.keyed and split.startswith("test") and official.label not in table.names:
        official = replace(official, label=None)
    for name in [*_flat(official), *source.header]:
        if name not in table.names:
            raise _missing(task, str(name), table, source)
    for name in table.names:
        if source.header and name not in source.header:
            raise _extra(name, table.names_at, source.header)
    return official, False


def _hub_columns(task: Task, split: str, table: Table) -> Columns:
    """Return the hub's columns for a generic file that has them; the first generic one is missing otherwise."""
    hub = task.hub.columns if task.hub else None
    wanted = _wanted(task, table)
    if hub is None or not set(_texts(hub)) & (set(table.names) - set(wanted)):
        raise _missing(task, next(name for name in wanted if name not in table.names), table)
    return _with_label(task, split, hub, table)


def _with_label(task: Task, split: str, columns: Columns, table: Table) -> Columns:
    """Return the columns without the label's if it is a test split that has none."""
    if columns.label in table.names:
        return columns
    if split.startswith("test"):
        return replace(columns, label=None)
    raise _missing(task, str(columns.label), table)


def _wanted(task: Task, table: Table) -> list[str]:
    """Return the columns that a generic file must have."""
    if task.format != "multiple-choice":
        return [*FORMAT_FIELDS[task.format]]
    if table.keyed and "choice1" not in table.names:
        return ["context", "choices"]
    return ["context", *(f"choice{i + 1}" for i in range(task.choices or max(2, _numbered_choices(table))))]


def _numbered_choices(table: Table) -> int:
    return sum(re.fullmatch(r"choice[1-9]\d*", name, re.ASCII) is not None for name in table.names)


def _generic_columns(task: Task, table: Table) -> Columns | None:
    wanted = _wanted(task, table)
    if not set(wanted) <= set(table.names):
        return None
    identifier = next((name for name in IDENTIFIERS if name in table.names), None)
    if task.format != "multiple-choice":
        return Columns(tuple(wanted), identifier=identifier)
    question: Column | tuple[Column, ...] = "question" if "question" in table.names else ()
    choices: Column | tuple[Column, ...] = "choices" if wanted[1] == "choices" else tuple(wanted[1:])
    return Columns(("context", question, choices), identifier=identifier)


def _texts(columns: Columns) -> list[Column]:
    return [name for one in columns.fields for name in (one if isinstance(one, tuple) else (one,))]


def _flat(columns: Columns) -> list[Column]:
    """Return all columns that are needed."""
    return _texts(columns) if columns.label is None else [*_texts(columns), columns.label]


def _missing(task: Task, name: str, table: Table, source: Source | None = None) -> InputError:
    near = nearest(name, table.names)
    found = ", ".join(map(repr, table.names[:12]))
    generic = ", ".join([*_wanted(task, table), "label"])
    official = ", ".join(map(str, _flat(source.columns))) if source and source.columns else ""
    fix = (
        f"rename {near!r} to {name}"
        if near
        else f"it needs {official}, or {generic}"
        if official
        else f"name them {generic}"
    )
    return InputError(f"no column {name!r} (columns: {found})", where=table.names_at, fix=fix)


def _extra(name: str, where: str, known: Sequence[str]) -> InputError:
    fix = f"leave it out; the columns are {', '.join(known)} (others: say so in a task of your own, a .yaml file)"
    return InputError(f"unknown column {name!r}", where=where, fix=fix)


class _Keys:
    """The cells of a row that are read: `slot` asks for a column and returns its place in what `pick` returns."""

    def __init__(self, table: Table, columns: Columns) -> None:
        self._table = table
        self.keys: list[Column] = []
        self.names: list[str] = []
        self.required = _flat(columns)

    def slot(self, column: Column) -> int:
        self.names.append(str(column))
        by_place = isinstance(column, str) and not self._table.keyed
        self.keys.append(self._table.names.index(str(column)) if by_place else column)
        return len(self.keys) - 1

    def has(self, column: Column) -> bool:
        return isinstance(column, int) or column in self._table.names

    def picker(self) -> Callable[[Any], tuple[Any, ...]]:
        if len(self.keys) > 1:
            return itemgetter(*self.keys)
        [key] = self.keys
        return lambda row: (row[key],)


def _row_reader(
    source: Source, table: Table, keys: _Keys, *, strict: bool
) -> Callable[[Any, str], tuple[Any, ...] | None]:
    """Return the function from a row to the cells that are read, None for a broken row that may be dropped."""
    pick = keys.picker()
    return _keyed(table, keys, pick, strict) if table.keyed else _placed(source, table, keys, pick, strict)


def _keyed(
    table: Table, keys: _Keys, pick: Callable[[Any], tuple[Any, ...]], strict: bool
) -> Callable[[Any, str], tuple[Any, ...]]:
    known = set(map(str, keys.keys))

    def values(row: dict[str, Any], where: str) -> tuple[Any, ...]:
        if strict and not row.keys() <= known:
            raise _extra(next(name for name in row if name not in known), where, sorted(known))
        try:
            return pick(row)
        except KeyError as error:
            fix = "every row needs the columns of the first one"
            raise InputError(f"no {error.args[0]!r} in this row", where=where, fix=fix) from None

    return values


def _placed(
    source: Source, table: Table, keys: _Keys, pick: Callable[[Any], tuple[Any, ...]], strict: bool
) -> Callable[[Any, str], tuple[Any, ...] | None]:
    if strict:
        for name in table.names:
            if name not in keys.names:
                raise _extra(name, table.names_at, keys.names)
    headerless = source.width > 0 and not strict
    width = source.width if headerless else len(table.names)
    least = 1 + max(key for key in keys.keys if isinstance(key, int)) if source.ragged else width

    def values(row: list[str], where: str) -> tuple[Any, ...] | None:
        if len(row) == width or (source.ragged and len(row) >= least):
            return pick(row)
        if source.broken:
            return None
        fix = "a tab or comma in a text must go, or be quoted in a .csv" if len(row) > width else "fill in the cells"
        raise InputError(f"a row of {len(row)} column(s), where {width} belong", where=where, fix=fix)

    return values


def _field_makers(task: Task, columns: Columns, keys: _Keys) -> list[Callable[[tuple[Any, ...], str], Text]]:
    names = FORMAT_FIELDS[task.format]
    return [_maker(name, column, columns, keys, task) for name, column in zip(names, columns.fields, strict=True)]


def _maker(
    name: str, column: Column | tuple[Column, ...], columns: Columns, keys: _Keys, task: Task
) -> Callable[[tuple[Any, ...], str], Text]:
    """Return the function from a row's cells to the field called `name`."""
    if column == ():
        return lambda values, where: ""
    if name == "choices":
        return _choices_maker(column, keys, task.choices)
    if isinstance(column, tuple):
        slots = [(keys.slot(one), str(one)) for one in column]
        return lambda values, where: " ".join(text_of(values[slot], one, where) for slot, one in slots)
    slot, shown = keys.slot(column), str(column) if isinstance(column, str) else name
    if name == "question" and columns.replace:
        return lambda values, where: _replaced(values[slot], shown, columns, where)
    return lambda values, where: text_of(values[slot], shown, where)


def _choices_maker(
    column: Column | tuple[Column, ...], keys: _Keys, expected: int | None
) -> Callable[[tuple[Any, ...], str], Text]:
    if isinstance(column, tuple):
        slots = [(keys.slot(one), str(one)) for one in column]
        return lambda values, where: tuple([text_of(values[slot], one, where) for slot, one in slots])
    slot = keys.slot(column)
    counts = [expected] if expected else []

    def choices(values: tuple[Any, ...], where: str) -> Text:
        found = values[slot]
        if not isinstance(found, list) or len(found) < 2:
            fix = "give at least two texts; in .csv and .tsv as the columns choice1, choice2, ..."
            raise InputError(f"{column!r} is not a list of choices", where=where, fix=fix)
        counts[:] = counts or [len(found)]
        if len(found) != counts[0]:
            fix = f"every example needs {counts[0]}"
            raise InputError(f"{len(found)} choices, where {counts[0]} belong", where=where, fix=fix)
        return tuple([text_of(one, f"choice {i + 1}", where) for i, one in enumerate(found)])

    return choices


def _replaced(value: Any, name: str, columns: Columns, where: str) -> str:
    text = text_of(value, name, where)
    if text not in columns.replace:
        fix = f"write one of {', '.join(columns.replace)}"
        raise InputError(f"unknown {name} {text[:60]!r}", where=where, fix=fix)
    return columns.replace[text]


def _identifier(columns: Columns, keys: _Keys) -> Callable[[tuple[Any, ...]], str]:
    wanted = columns.identifier if isinstance(columns.identifier, tuple) else (columns.identifier,)
    slots = [keys.slot(column) for column in wanted if column is not None and keys.has(column)]
    if not slots:
        return lambda values: ""
    return lambda values: " ".join([str(values[slot]) for slot in slots])


def _check_split(task: Task, examples: Sequence[Example], table: Table) -> None:
    if not examples:
        raise InputError("no examples in this split", where=table.names_at, fix="fetch or write the file again")
    labelled = [one.label is not None for one in examples]
    if any(labelled) and not all(labelled):
        where = examples[labelled.index(False)].where
        raise InputError("no label, though other rows have one", where=where, fix="label all rows, or none")
    if task.format != "multiple-choice":
        return
    for one in examples:
        if one.label is not None and one.label >= len(one.fields[-1]):
            fix = f"write the index of a choice, 0 to {len(one.fields[-1]) - 1}"
            raise InputError(f"unknown label {one.label}", where=one.where, fix=fix)


def _part(source: Source, path: Path, examples: list[Example]) -> list[Example]:
    """Return the examples that belong to the split, if the file holds two."""
    if source.part.startswith("gpt1"):
        if len(examples) < 2:
            raise InputError("one example cannot be split in two", where=examples[0].where, fix="fetch the whole file")
        # GPT-1 took 374 of Story Cloze's 1,871 by scikit-learn's train_test_split, which is this permutation.
        order = np.random.RandomState(3535999445).permutation(len(examples))
        held_out = max(1, round(len(examples) * 374 / 1871))
        chosen = order[held_out:] if source.part == "gpt1-train" else order[:held_out]
        return [examples[i] for i in chosen]
    if source.part.startswith("msr"):
        ids = path.parent / "dev_ids.tsv"
        dev_ids = {text.replace("\t", " ") for _, text in lines(ids)}
        kept = [one for one in examples if (one.identifier in dev_ids) == (source.part == "msr-dev")]
        if not kept:
            raise InputError("no example for this split", where=f"{ids}:1", fix="fetch GLUE's dev_ids.tsv again")
        return kept
    return examples
