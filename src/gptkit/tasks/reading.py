"""Read the examples of a split from --data, from the hub, or from beside a user's own task; every row is checked.

A file is in the authors' form, or a generic one whose columns are named after the format's fields, `label` and
optionally `index`: text; premise, hypothesis; first, second; context, question, choices (in .csv and .tsv choice1,
choice2, ...).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from gptkit.errors import InputError, UsageError
from gptkit.scoring.protocols import Protocol
from gptkit.system.hub import load_dataset
from gptkit.tasks import files
from gptkit.tasks.columns import columns_line, columns_of, columns_to_label, extra_column, required_columns
from gptkit.tasks.files import Table, not_found
from gptkit.tasks.labels import label_reader
from gptkit.tasks.task import (
    FORMAT_FIELDS,
    KINDS,
    Column,
    Columns,
    Evaluation,
    HubSource,
    Kind,
    Loaded,
    Source,
    Task,
    loaded,
)
from gptkit.text.examples import Example

OTHER_STEMS = {"dev": ("validation", "val")}
SHOWN_LINES = 8  # of rows with the same fault


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


def shared_notes(splits: Mapping[str, Sequence[Example]]) -> Iterator[str]:
    """Yield a warning for each split but train with examples that are also trained on: it then measures memory."""
    trained = {example.fields for example in splits["train"]}
    for name, examples in splits.items():
        if name != "train" and (shared := sum(example.fields in trained for example in examples)):
            seen = f"{shared:,} of {len(examples):,} {name} examples have the same texts as training examples"
            yield f"{seen}: {name} will look better than new data; remove them from one of the two files"


def check_examples(task: Task, split: str, data: str | None) -> None:
    """Raise the errors of `load_examples` that can be found without reading a file or the network."""
    folder = _place_of(task, split, data)
    if task.make is None and not str(folder).startswith("hf:"):
        _find_source(task, split, Path(folder).expanduser())


def _place_of(task: Task, split: str, data: str | Path | None) -> str | Path:
    """Return where the examples of a split are read from, "" for those that are generated."""
    if split not in task.splits:
        fix = f"use {' or '.join(task.splits)}"
        if task.is_own and split in ("train", "dev", "test"):
            rows = ", with rows that are not in train" * (split != "train" and "train" in task.splits)
            fix = f"add {split}: FILE to the splits of its YAML{rows}"
        raise UsageError(f"the task {task.name} has no split {split!r}", where=f"--task {task.name}", fix=fix)
    if task.make is not None and data is not None:
        message = f"{task.name} is made from Python's documentation and reads no data"
        raise UsageError(message, where="--data", fix="leave it out; a --suite gives each task its own")
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

    return Evaluation(task.name, load, protocols, fields=FORMAT_FIELDS[task.format])


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
    source, paths = _named_source(task, split, folder) or _find_source(task, split, folder)
    examples: list[Example] = []
    notes: list[str] = []
    for path in paths:
        table = files.open_table(path, source.kind, may_be_quoted=task.is_own or source.columns is None)
        more, dropped = _table_examples(task, split, source, table, first=len(examples))
        examples += more
        notes += [f"{path}: {note}" for note in dropped]
    return source.select(paths[0], examples) if source.select else examples, notes


def _named_source(task: Task, split: str, file: Path) -> tuple[Source, list[Path]] | None:
    """Return the source of a split of a user's own task for which --data names one file, None for a folder."""
    kind = next((kind for kind in KINDS if file.name.lower().endswith(f".{kind}")), None)
    if not task.is_own or kind is None or not file.is_file():
        return None
    return Source((file.name,), kind, task.splits[split][0].columns), [file]


def _find_source(task: Task, split: str, folder: Path) -> tuple[Source, list[Path]]:
    """Return the first form of a split whose files exist, the authors' forms before the generic ones."""
    files.require_folder(folder, f"the folder with {_names_of(task, split)}")
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
    blank: list[str] = []
    columns, identifiers, rows = _rows_of(task, split, source, table, blank)
    fields = [*zip(FORMAT_FIELDS[task.format], columns.fields, strict=True)]
    label_of = label_reader(task, split, columns)
    examples: list[Example] = []
    unlabelled, broken, faults = 0, [], list[InputError]()
    for number, (where, row) in enumerate(rows, first):
        if row is None:
            broken.append(where)
            continue
        label = None
        try:
            if columns.label is not None:
                if columns.unlabelled is not None and row[columns.label] == columns.unlabelled:
                    unlabelled += 1
                    continue
                label = label_of(row[columns.label], where)
            texts = tuple([_field(name, column, columns, row, where) for name, column in fields])
        except InputError as fault:
            faults.append(fault)
            continue
        identifier = " ".join([str(row[name]) for name in identifiers])
        examples.append(Example(texts, label, where, identifier or str(number)))
    if faults:
        raise _all_faults(faults)
    if not examples:
        raise InputError("no examples in this split", where=table.names_at, fix="fetch or write the file again")
    notes = [f"dropped {unlabelled:,} row(s) without a gold label"] * bool(unlabelled)
    notes += [f"skipped {len(blank):,} blank row(s) at the end" for _ in blank[:1]]
    return examples, notes + [f"dropped {len(broken):,} broken row(s) (first: {where})" for where in broken[:1]]


def unlabelled_examples(task: Task, path: Path) -> Iterator[Example]:
    """Yield the examples of a file to be labelled, one at a time; InputError, with file and line, for a bad row.

    Columns are named after the format's fields, or as the task's YAML or data set says; all others are ignored, that of
    the labels too. A .txt has a text per line, for a format of one field.
    """
    fields = FORMAT_FIELDS[task.format]
    kind = next((kind for kind in KINDS if path.suffix.lower() == f".{kind}"), None)
    is_empty = True
    for example in _lines_as_examples(task, path) if kind is None else _rows_as_examples(task, path, kind):
        is_empty = False
        yield example
    if is_empty:
        raise InputError("no example in this file", where=str(path), fix=f"write rows of {', '.join(fields)}")


def _lines_as_examples(task: Task, path: Path) -> Iterator[Example]:
    fields, kinds = FORMAT_FIELDS[task.format], ", ".join(f".{kind}" for kind in KINDS)
    if path.suffix.lower() != ".txt":
        raise InputError(f"neither .txt nor one of {kinds}", where=str(path), fix="pass one of these")
    if len(fields) > 1:
        message = f"a .txt has one text per line, but the model reads {', '.join(fields)}"
        raise InputError(message, where=str(path), fix=f"pass one of {kinds} with these columns")
    for where, line in files.lines(path):
        if line.strip():
            yield Example((files.checked_text(line, "text", where),), None, where, "")


def _rows_as_examples(task: Task, path: Path, kind: Kind) -> Iterator[Example]:
    source = Source((path.name,), kind)
    table = files.open_table(path, kind, may_be_quoted=True)
    columns = columns_to_label(task, table)
    rows = _rows_by_column(task, source, table, required_columns(columns), is_generic=False, blank=[])
    choices = task.choices
    for where, row in rows:
        assert row is not None  # broken rows are dropped from authors' files only
        named_columns = zip(FORMAT_FIELDS[task.format], columns.fields, strict=True)
        texts = tuple([_field(name, column, columns, row, where) for name, column in named_columns])
        if task.format == "multiple-choice":
            if table.keyed and "question" in row and "question" not in table.names:
                fix = 'give every row one, "" for none'
                raise InputError("a question, but the first row has none", where=where, fix=fix)
            choices = choices or len(texts[-1])
            if len(texts[-1]) != choices:
                fix = "give every example the same number of choices"
                raise InputError(f"{len(texts[-1])} choices, expected {choices}", where=where, fix=fix)
        yield Example(texts, None, where, "")


def _rows_of(
    task: Task, split: str, source: Source, table: Table, blank: list[str]
) -> tuple[Columns, list[Column], Iterator[tuple[str, Mapping[Column, Any] | None]]]:
    """Return a file's columns, those of the identifier, and its rows by column."""
    columns, is_generic = columns_of(task, split, source, table)
    wanted = columns.identifier if isinstance(columns.identifier, tuple) else (columns.identifier,)
    identifiers = [name for name in wanted if name is not None and (isinstance(name, int) or name in table.names)]
    needed = [*required_columns(columns), *identifiers]
    return columns, identifiers, _rows_by_column(task, source, table, needed, is_generic=is_generic, blank=blank)


def _rows_by_column(
    task: Task, source: Source, table: Table, needed: Sequence[Column], *, is_generic: bool, blank: list[str]
) -> Iterator[tuple[str, Mapping[Column, Any] | None]]:
    """Return the rows of a file by column, see _listed_rows; `blank` gets the places of the blank rows at the end."""
    if table.keyed:
        return _keyed_rows(task, table, needed, is_generic)
    table = replace(table, rows=_without_blank_end(table.rows, blank))
    return _listed_rows(task, source, table, needed, is_generic)


def _without_blank_end(rows: Iterator[tuple[str, list[str]]], blank: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield rows up to the last one with text; add the places of the others to `blank`."""
    held: list[tuple[str, list[str]]] = []
    for where, row in rows:
        held.append((where, row))
        if any(map(str.strip, row)):
            yield from held
            held.clear()
    blank += [where for where, _ in held]


def _all_faults(faults: Sequence[InputError]) -> InputError:
    """Return one error on the faulty rows of a file: the first one's, with the number and lines of those like it."""
    first = faults[0]
    alike = [fault for fault in faults if fault.message == first.message]
    message, more = first.message, len(faults) - len(alike)
    if len(alike) > 1:
        lines = ", ".join(str(fault.where).rpartition(":")[2] for fault in alike[:SHOWN_LINES])
        message += f" in {len(alike):,} rows: lines {lines}" + ", ..." * (len(alike) > SHOWN_LINES)
    if more:
        other = next(fault for fault in faults if fault.message != first.message)
        line = str(other.where).rpartition(":")[2]
        message += f"; {more:,} other faulty row(s), the first in line {line}: {other.message}"
    return InputError(message, where=first.where, fix=first.fix)


def _keyed_rows(
    task: Task, table: Table, needed: Sequence[Column], is_generic: bool
) -> Iterator[tuple[str, Mapping[Column, Any]]]:
    """Yield rows that have all needed columns, and in a generic file no others."""
    known = set(map(str, needed))
    for where, row in table.rows:
        if is_generic and not row.keys() <= known:
            name = next(name for name in row if name not in known)
            raise extra_column(name, where, sorted(known), columns_line(task, table))
        if not row.keys() >= known:
            missing = next(name for name in needed if name not in row)
            fix = "every row needs the columns of the first one"
            raise InputError(f"no {missing!r} in this row", where=where, fix=fix)
        yield where, row


def _listed_rows(
    task: Task, source: Source, table: Table, needed: Sequence[Column], is_generic: bool
) -> Iterator[tuple[str, Mapping[Column, Any] | None]]:
    """Yield the needed cells of every row by column, None for a broken row that may be dropped."""
    for name in table.names:
        if is_generic and name not in needed:
            raise extra_column(name, table.names_at, list(map(str, needed)), columns_line(task, table))
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
    if name == "question" and not columns.replace and row[column] in ("", None):
        return ""
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
