"""Which columns of a file hold the fields and the label of a task, and what to do where they are missing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gptkit.errors import InputError, nearest
from gptkit.system.writing import yaml_text
from gptkit.tasks import files
from gptkit.tasks.files import Table
from gptkit.tasks.labels import TO_PREDICT
from gptkit.tasks.task import FORMAT_FIELDS, Column, Columns, Source, Task, may_lack_labels

IDENTIFIERS = ("index", "idx", "id", "", "Unnamed: 0", "__index_level_0__")  # the last three are pandas' own index


def columns_of(task: Task, split: str, source: Source, table: Table) -> tuple[Columns, bool]:
    """Return a file's columns, without the label in a test split that has none, and whether it is a generic file."""
    is_described = task.is_own and source.columns is not None
    generic = None if is_described else _generic_columns(task, table)
    columns = generic or source.columns or _hub_columns(task, table)
    if source.width and generic is None:
        return columns, False
    files.refuse_duplicate_columns(table.names, table.names_at)
    if may_lack_labels(split) and columns.label not in table.names:
        columns = replace(columns, label=None)
    header = () if generic else source.header
    for name in [*required_columns(columns), *header]:
        if name not in table.names:
            raise missing_column(task, str(name), table, None if generic else source)
    for name in table.names:
        if header and name not in header:
            raise extra_column(name, table.names_at, header, columns_line(task, table))
    return columns, generic is not None


def columns_to_label(task: Task, table: Table) -> Columns:
    """Return the columns of a file of new rows, named as the task's YAML or data set says or after the fields."""
    described = next((source.columns for sources in task.splits.values() for source in sources), None)
    named = described if task.is_own else task.hub and task.hub.columns
    for columns in (named, _generic_columns(task, table)):
        if columns and {*_texts(columns)} <= {*table.names}:
            files.refuse_duplicate_columns([name for name in table.names if name in _texts(columns)], table.names_at)
            return replace(columns, label=None)
    wanted = [*map(str, _texts(named))] if named and task.is_own else _generic_names(task, table)
    name = next(name for name in wanted if name not in table.names)
    near, found = nearest(name, table.names), ", ".join(map(repr, table.names[:12]))
    first_line = "" if table.keyed else " in the first line"
    fix = f"rename {near!r} to {name}" if near else f"name them {', '.join(wanted)}{first_line}"
    raise InputError(f"no column {name!r} (columns: {found})", where=table.names_at, fix=fix)


def _hub_columns(task: Task, table: Table) -> Columns:
    """Return the columns of the task's hub data set if this file has any of them, else raise for a generic one."""
    hub = task.hub.columns if task.hub else None
    wanted = _generic_names(task, table)
    if hub is None or not set(_texts(hub)) & (set(table.names) - set(wanted)):
        raise missing_column(task, next(name for name in wanted if name not in table.names), table)
    return hub


def _generic_names(task: Task, table: Table) -> list[str]:
    """Return the columns that a generic file must have."""
    if task.format != "multiple-choice":
        return [*FORMAT_FIELDS[task.format]]
    if table.keyed and "choice1" not in table.names:
        return ["context", "choices"]
    numbered = [name for name in table.names if re.fullmatch(r"choice[1-9]\d*", name, re.ASCII)]
    return ["context", *(f"choice{i + 1}" for i in range(task.choices or max(2, len(numbered))))]


def _generic_columns(task: Task, table: Table) -> Columns | None:
    wanted = _generic_names(task, table)
    if not set(wanted) <= set(table.names):
        return None
    identifier = next((name for name in IDENTIFIERS if name in table.names), None)
    if task.format != "multiple-choice":
        return Columns(tuple(wanted), identifier=identifier)
    question: Column | tuple[Column, ...] = "question" if "question" in table.names else ()
    choices: Column | tuple[Column, ...] = "choices" if wanted[1] == "choices" else tuple(wanted[1:])
    return Columns(("context", question, choices), identifier=identifier)


def _texts(columns: Columns) -> list[Column]:
    return [name for field in columns.fields for name in (field if isinstance(field, tuple) else (field,))]


def required_columns(columns: Columns) -> list[Column]:
    """Return the columns that every row must have."""
    return _texts(columns) if columns.label is None else [*_texts(columns), columns.label]


def missing_column(task: Task, name: str, table: Table, source: Source | None = None) -> InputError:
    near = nearest(name, table.names)
    found = ", ".join(map(repr, table.names[:12]))
    generic = ", ".join([*_generic_names(task, table), "label"])
    fix = f"name them {generic}"
    if not table.keyed:
        fix += " in the first line"
    if len(table.names) == 1 and not table.keyed:
        fix += ", separated by commas, semicolons, tabs or |"
    elif task.is_own and source and source.columns:
        fix = f"write {near or 'another name'} for it under columns in the task's file, or add the column"
        fix += f"; {TO_PREDICT}" * (name == source.columns.label)
    elif task.is_own:
        line = columns_line(task, table)
        fix = f"write into the task's file: {line}; or {f'rename {near!r} to {name}' if near else fix}"
        fix = f"add the column of labels; {TO_PREDICT}" if name == "label" and "label: COLUMN" in line else fix
    elif near:
        fix = f"rename {near!r} to {name}"
    elif source and source.columns:
        fix = f"use the columns {', '.join(map(str, required_columns(source.columns)))}, or {generic}"
    return InputError(f"no column {name!r} (columns: {found})", where=table.names_at, fix=fix)


def columns_line(task: Task, table: Table) -> str:
    """Return the line of an own task's YAML that names the columns of a file, as its names and its first row suggest.

    A label is recognized by its column's name or by its spelling, a text by its column's name or its length.
    """
    _, row = next(table.rows, ("", None))
    cells = dict(row if isinstance(row, dict) else zip(table.names, row or (), strict=False))
    free = {name.lower(): name for name in table.names if name.lower() not in IDENTIFIERS and name}
    fields = [*FORMAT_FIELDS[task.format]]
    named = {field: free.pop(field) for field in (*fields, "label") if field in free}
    if "label" not in named and free:
        spellings = {*task.labels, *map(str, range(len(task.labels) or task.choices or 0))}
        by_cell = [name for name in free if str(cells.get(free[name])) in spellings]
        named["label"] = free.pop(by_cell[-1] if by_cell else [*free][-1])
    wanted = [field for field in fields if field not in named and field not in ("question", "choices")]
    longest = sorted(free, key=lambda name: -len(str(cells.get(free[name], ""))))[: len(wanted)]
    texts = [name for name in free if name in longest]  # in the file's order
    named |= {field: free.pop(name) for field, name in zip(wanted, texts, strict=False)}
    found: dict[str, Any] = {field: named.get(field, "COLUMN") for field in fields if field != "question"}
    if "question" in named:
        found["question"] = named["question"]
    if "choices" in found and "choices" not in named:
        found["choices"] = [*free.values()] or ["COLUMN", "COLUMN"]
    line = yaml_text(found | {"label": named.get("label", "COLUMN")}, default_flow_style=True, width=math.inf)
    return f"columns: {line.strip()}"


def extra_column(name: str, where: str, known: Sequence[str], line: str) -> InputError:
    columns = " and ".join(filter(None, [", ".join(known[:-1]), *known[-1:]]))
    fix = f"remove it: the columns are {columns}; or name them in the YAML of your own task: {line}"
    return InputError(f"unknown column {name!r}", where=where, fix=fix)
