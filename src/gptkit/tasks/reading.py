"""Read the examples of a split from --data, from the hub, or from beside a user's own task; every row is checked.

A file is in the authors' form, or a generic one whose columns are named after the format's fields, `label` and
optionally `index`: text; premise, hypothesis; first, second; context, question, choices (in .csv and .tsv choice1,
choice2, ...).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from gptkit.errors import InputError, UsageError, nearest
from gptkit.scoring.protocols import Protocol
from gptkit.system.hub import load_dataset
from gptkit.tasks import files
from gptkit.tasks.files import Table, not_found, quoted
from gptkit.tasks.task import FORMAT_FIELDS, KINDS, Column, Columns, Evaluation, HubSource, Loaded, Source, Task, loaded
from gptkit.text.examples import Example

OTHER_STEMS = {"dev": ("validation", "val")}
IDENTIFIERS = ("index", "idx", "id", "", "Unnamed: 0", "__index_level_0__")  # the last three are pandas' own index
Label = int | float | None
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf(inity)?)", re.ASCII | re.IGNORECASE)


def load_examples(task: Task, split: str, data: str | Path | None) -> Loaded:
    """Return the examples of a split.

    `data` is a folder with the files, or with a folder <task> of them, in any case; hf: for the task's own data set on
    the hub; or hf:NAME[:CONFIG]. UsageError if the split or the data do not exist, InputError for bad files.
    """
    folder = _place_of(task, split, data)
    if task.make is not None:
        return loaded(task.make(split))
    if str(folder).startswith("hf:"):
        examples, notes = hub_examples(task, split, str(folder))
    else:
        examples, notes = _file_examples(task, split, Path(folder).expanduser())
    _check_labels_and_choices(task, examples)
    return loaded(examples, notes)


def check_examples(task: Task, split: str, data: str | None) -> None:
    """Raise the errors of `load_examples` that can be found without reading a file or the network."""
    folder = _place_of(task, split, data)
    if task.make is None and not str(folder).startswith("hf:"):
        _find_source(task, split, Path(folder).expanduser())


def _place_of(task: Task, split: str, data: str | Path | None) -> str | Path:
    """Return where the examples of a split are read from, "" for those that are generated."""
    if split not in task.splits:
        fix = f"use {' or '.join(task.splits)}" + f", or add {split}: FILE to the splits of its YAML" * task.is_own
        raise UsageError(f"the task {task.name} has no split {split!r}", where=f"--task {task.name}", fix=fix)
    folder = "" if task.make is not None else task.folder if data is None else data
    if folder is None:
        online = f"; or --data hf: for {task.hub.name} on the hub" if task.hub else ""
        source = "" if task.is_own else f" from {task.data}"
        fix = f"pass --data DIR, a folder with {_names_of(task, split)}{source}{online}"
        raise UsageError(f"{task.name} needs its data", where="--data", fix=fix)
    return folder


def zero_shot(task: Task, split: str, *protocols: Protocol) -> Evaluation:
    """Return the zero-shot evaluation of a task's split, read from the same data."""

    def load(data: str | None) -> Loaded:
        found = load_examples(task, split, data)
        unlabelled = next((example for example in found.examples if example.label is None), None)
        if unlabelled is not None:
            where = unlabelled.where
            raise InputError(f"no labels in {task.name}'s {split}", where=where, fix="pass the labelled file")
        return found

    return Evaluation(task.name, load, protocols)


def hub_examples(task: Task, split: str, name: str) -> tuple[list[Example], list[str]]:
    """Return the examples of a split, and notes on dropped rows.

    `name` is hf: for the task's own data set, or hf:NAME[:CONFIG], whose columns are named like those of the task's own
    or after the format's fields.
    """
    path, _, configuration = name.removeprefix("hf:").partition(":")
    hub = task.hub
    if path:
        hub = replace(hub or HubSource("", None, None), path=path, configuration=configuration or None)
    if hub is None:
        fix = f"pass --data DIR with its files from {task.data}"
        raise UsageError(f"{task.name} is not on the hub", where="--data hf:", fix=fix)
    if split not in hub.splits:
        fix = f"use {' or '.join(hub.splits)}"
        raise UsageError(f"{hub.path} has no split for {split!r}", where=f"--data {name}", fix=fix)
    rows = load_dataset(hub.name, split=hub.splits[split])
    place = f"{hub.name} {hub.splits[split]}"
    batches = rows.with_format("arrow").iter(batch_size=4096)
    table = Table(tuple(rows.column_names), f"{place}:1", files.arrow_rows(place, batches), keyed=True)
    return _table_examples(replace(task, hub=hub), split, Source((), "parquet"), table)


def _file_examples(task: Task, split: str, folder: Path) -> tuple[list[Example], list[str]]:
    """Return the examples of a split from the first form of its files in a folder, and notes on dropped rows."""
    source, paths = _find_source(task, split, folder)
    examples: list[Example] = []
    notes: list[str] = []
    for path in paths:
        table = files.open_table(path, source.kind, may_be_quoted=task.is_own or source.columns is None)
        more, dropped = _table_examples(task, split, source, table, first=len(examples))
        examples += more
        notes += [f"{path}: {note}" for note in dropped]
    return source.select(paths[0], examples) if source.select else examples, notes


def _find_source(task: Task, split: str, folder: Path) -> tuple[Source, list[Path]]:
    """Return the first form of a split whose files exist, the authors' forms before the generic ones."""
    files.require_folder(folder)
    base, _, side = split.partition("-")
    joints = ("-", "_") if side else ("",)
    stems = [stem + joint + side for stem in (base, *OTHER_STEMS.get(base, ())) for joint in joints]
    generic = [Source((f"{stem}.{kind}",), kind) for stem in stems for kind in KINDS if not _is_named(task, split)]
    sources = [*task.splits[split], *generic]
    found = files.first_complete(files.roots(folder, (task.name, *task.folders)), [source.paths for source in sources])
    if found is None:
        raise not_found(f"no file for the split {split!r} of {task.name}", folder, _names_of(task, split), task.name)
    return sources[found[0]], found[1]


def _names_of(task: Task, split: str) -> str:
    """Return the names of the files that a split is looked for in."""
    official = dict.fromkeys(" + ".join(source.paths) for source in task.splits[split])
    generic = f"{split}{'|'.join(f'.{kind}' for kind in KINDS)}"
    return ", ".join([*official, *[generic] * (not task.is_own)])


def _is_named(task: Task, split: str) -> bool:
    """Return whether the YAML of a user's own task names the file of a split; a split without a name has several."""
    return task.is_own and len(task.splits[split]) == 1


def require_named_files(task: Task, data: str | None) -> None:
    """Raise InputError if any file that the YAML of a user's own task names is missing."""
    folder = task.folder if data is None else data
    if folder is not None and not str(folder).startswith("hf:"):
        for split in task.splits:
            if _is_named(task, split):
                _find_source(task, split, Path(folder).expanduser())


def _table_examples(
    task: Task, split: str, source: Source, table: Table, *, first: int = 0
) -> tuple[list[Example], list[str]]:
    """Return the examples of one file, numbered from `first`, and notes on dropped rows."""
    columns, is_generic = _columns(task, split, source, table)
    wanted = columns.identifier if isinstance(columns.identifier, tuple) else (columns.identifier,)
    identifiers = [name for name in wanted if name is not None and (isinstance(name, int) or name in table.names)]
    needed = [*_required(columns), *identifiers]
    rows = _keyed_rows(table, needed, is_generic) if table.keyed else _listed_rows(source, table, needed, is_generic)
    fields = [*zip(FORMAT_FIELDS[task.format], columns.fields, strict=True)]
    label_of = label_reader(task, split, columns)
    examples: list[Example] = []
    unlabelled, broken = 0, []
    for number, (where, row) in enumerate(rows, first):
        if row is None:
            broken.append(where)
            continue
        label = None
        if columns.label is not None:
            if columns.unlabelled is not None and row[columns.label] == columns.unlabelled:
                unlabelled += 1
                continue
            label = label_of(row[columns.label], where)
        texts = tuple([_field(name, column, columns, row, where) for name, column in fields])
        identifier = " ".join([str(row[name]) for name in identifiers])
        examples.append(Example(texts, label, where, identifier or str(number)))
    if not examples:
        raise InputError("no examples in this split", where=table.names_at, fix="fetch or write the file again")
    notes = [f"dropped {unlabelled:,} row(s) without a gold label"] * bool(unlabelled)
    return examples, notes + [f"dropped {len(broken):,} broken row(s) (first: {where})" for where in broken[:1]]


def _keyed_rows(table: Table, needed: Sequence[Column], is_generic: bool) -> Iterator[tuple[str, Mapping[Column, Any]]]:
    """Yield rows that have all needed columns, and in a generic file no others."""
    known = set(map(str, needed))
    for where, row in table.rows:
        if is_generic and not row.keys() <= known:
            raise _extra(next(name for name in row if name not in known), where, sorted(known))
        if not row.keys() >= known:
            missing = next(name for name in needed if name not in row)
            fix = "every row needs the columns of the first one"
            raise InputError(f"no {missing!r} in this row", where=where, fix=fix)
        yield where, row


def _listed_rows(
    source: Source, table: Table, needed: Sequence[Column], is_generic: bool
) -> Iterator[tuple[str, Mapping[Column, Any] | None]]:
    """Yield the needed cells of every row by column, None for a broken row that may be dropped."""
    for name in table.names:
        if is_generic and name not in needed:
            raise _extra(name, table.names_at, list(map(str, needed)))
    rows, width = table.rows, len(table.names)
    places = {column: column if isinstance(column, int) else table.names.index(column) for column in needed}
    if source.width and not is_generic:  # without a header
        rows, width = chain([(table.names_at, list(table.names))], rows), source.width
    least = 1 + max(places.values()) if source.ragged else width
    for where, row in rows:
        is_complete = len(row) == width or (source.ragged and len(row) >= least)
        cells = {column: row[place] for column, place in places.items()} if is_complete else {}
        if source.skip_broken and not (cells and all(map(str.strip, cells.values()))):
            yield where, None
        elif cells:
            yield where, cells
        else:
            quote = "remove tabs and commas from the texts, or quote the cells in a .csv"
            fix = quote if len(row) > width else "fill in the cells, or quote texts with line breaks in a .csv"
            raise InputError(f"{len(row)} column(s), expected {width}", where=where, fix=fix)


def _field(
    name: str, column: Column | tuple[Column, ...], columns: Columns, row: Mapping[Column, Any], where: str
) -> str | tuple[str, ...]:
    """Return the text of a field, or of each of its choices."""
    if isinstance(column, tuple):
        texts = [files.checked_text(row[part], str(part), where) for part in column]
        return tuple(texts) if name == "choices" else " ".join(texts)
    if name == "choices":
        choices = row[column]
        if not isinstance(choices, list) or len(choices) < 2:
            fix = "list at least two strings; in .csv and .tsv use the columns choice1, choice2, ..."
            raise InputError(f"{column!r} is not a list of choices", where=where, fix=fix)
        return tuple([files.checked_text(choice, f"choice {i}", where) for i, choice in enumerate(choices, 1)])
    shown = column if isinstance(column, str) else name
    text = files.checked_text(row[column], shown, where)
    if name != "question" or not columns.replace:
        return text
    if text not in columns.replace:
        fix = f"write one of {', '.join(columns.replace)}"
        raise InputError(f"unknown {shown} {text[:60]!r}", where=where, fix=fix)
    return columns.replace[text]


def _check_labels_and_choices(task: Task, examples: Sequence[Example]) -> None:
    """Raise InputError unless all examples or none have labels, and all have the same number of choices."""
    labelled = [example.label is not None for example in examples]
    if any(labelled) and not all(labelled):
        where = examples[labelled.index(False)].where
        raise InputError("no label, although other rows have one", where=where, fix="label all rows, or none")
    if task.format != "multiple-choice":
        return
    expected = task.choices or len(examples[0].fields[-1])
    for example in examples:
        if len(example.fields[-1]) != expected:
            message = f"{len(example.fields[-1])} choices, expected {expected}"
            raise InputError(message, where=example.where, fix="give every example the same number of choices")
        if example.label is not None and example.label >= expected:
            fix = f"write the index of a choice, 0 to {expected - 1}"
            raise InputError(f"unknown label {example.label}", where=example.where, fix=fix)


def _columns(task: Task, split: str, source: Source, table: Table) -> tuple[Columns, bool]:
    """Return a file's columns, without the label in a test split that has none, and whether it is a generic file."""
    is_described = task.is_own and source.columns is not None
    generic = None if is_described else _generic_columns(task, table)
    columns = generic or source.columns or _hub_columns(task, table)
    if source.width and generic is None:
        return columns, False
    files.refuse_duplicate_columns(table.names, table.names_at)
    if split.startswith("test") and columns.label not in table.names:
        columns = replace(columns, label=None)
    header = () if generic else source.header
    for name in [*_required(columns), *header]:
        if name not in table.names:
            raise _missing(task, str(name), table, None if generic else source)
    for name in table.names:
        if header and name not in header:
            raise _extra(name, table.names_at, header)
    return columns, generic is not None


def _hub_columns(task: Task, table: Table) -> Columns:
    """Return the columns of the task's hub data set if this file has any of them, else raise for a generic one."""
    hub = task.hub.columns if task.hub else None
    wanted = _generic_names(task, table)
    if hub is None or not set(_texts(hub)) & (set(table.names) - set(wanted)):
        raise _missing(task, next(name for name in wanted if name not in table.names), table)
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


def _required(columns: Columns) -> list[Column]:
    """Return the columns that every row must have."""
    return _texts(columns) if columns.label is None else [*_texts(columns), columns.label]


def _missing(task: Task, name: str, table: Table, source: Source | None = None) -> InputError:
    near = nearest(name, table.names)
    found = ", ".join(map(repr, table.names[:12]))
    generic = ", ".join([*_generic_names(task, table), "label"])
    fix = f"name them {generic}"
    if not table.keyed:
        fix += " in the first line"
    if len(table.names) == 1 and not table.keyed:
        fix += ", separated by commas, semicolons or tabs"
    elif task.is_own:
        fix += ", or name yours under columns: in the task's file"
    if near:
        fix = f"rename {near!r} to {name}" + ", or correct the task's columns" * (task.is_own and source is not None)
    elif source and source.columns:
        fix = f"use the columns {', '.join(map(str, _required(source.columns)))}, or {generic}"
    return InputError(f"no column {name!r} (columns: {found})", where=table.names_at, fix=fix)


def _extra(name: str, where: str, known: Sequence[str]) -> InputError:
    columns = " and ".join(filter(None, [", ".join(known[:-1]), *known[-1:]]))
    named = f"columns: {{{known[0]}: {known[0]}, ...}}"
    fix = f"remove it: the columns are {columns}; or name them in the YAML of your own task ({named})"
    return InputError(f"unknown column {name!r}", where=where, fix=fix)


def label_reader(task: Task, split: str, columns: Columns) -> Callable[[Any, str], Label]:
    """Return a function from a label's cell to the class, choice or score, or None in an unlabelled test split."""
    may_lack = split.startswith("test")
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
            raise InputError("no label", where=where, fix="fill it in, or drop the row")
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
    """Return what is equal for two spellings of a number (1, 1.0, "1.0"), a boolean (false, "False") or an accent."""
    word = unicodedata.normalize("NFC", str(value))
    if type(value) is not bool and re.fullmatch(r"-?\d{1,15}(\.\d+)?", word, re.ASCII):
        return float(value)
    return word.lower() if word.lower() in ("true", "false") else word


def _score(value: Any, low: float, high: float, where: str) -> float:
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
