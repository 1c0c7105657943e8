"""Rows out of a task's files, streamed: tab-separated, CSV, JSON lines, parquet, and RACE's folders of JSON.

Line ends are LF or CR LF; blank lines at the end are passed over. Whatever cannot be read is an InputError that names
file and line.
"""

from __future__ import annotations

import codecs
import csv
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gptkit.errors import InputError
from gptkit.system.json_files import json_object
from gptkit.system.reading import invalid_utf8, require_regular, translate_parquet_errors, translate_read_errors
from gptkit.tasks.task import Kind

LONGEST_CELL = 2**31 - 1  # a text may be a book; the csv module's own limit is 131,072 characters
JSON_FIX = 'write one JSON object, such as {"text": "...", "label": "..."}'


@dataclass(frozen=True)
class Table:
    """The rows of a file, each with its place ("file:line").

    Cells are a list in the order of `names`, the first line of the file, which is no row; with `keyed` they are a dict,
    and `names` are the keys of the first row.
    """

    names: tuple[str, ...]
    names_at: str
    rows: Iterator[tuple[str, Any]]
    keyed: bool

    def with_first_line(self) -> Iterator[tuple[str, Any]]:
        """Return the rows of a file without a header."""
        return itertools.chain([(self.names_at, list(self.names))], self.rows)


def open_table(path: Path, kind: Kind) -> Table:
    """Return the rows of a file, or of RACE's folder."""
    if kind in ("tsv", "csv"):
        rows = _tab_separated(path) if kind == "tsv" else _comma_separated(path)
        where, names = next(rows, (f"{path}:1", None))
        if names is None:
            raise _empty(where)
        return Table(tuple(names), where, rows, keyed=False)
    if kind == "parquet":
        return _parquet(path)
    keyed = _json_lines(path) if kind == "jsonl" else _race(path)
    first = next(keyed, None)
    if first is None:
        raise _empty(f"{path}:1")
    return Table(tuple(first[1]), first[0], itertools.chain([first], keyed), keyed=True)


def refuse_repeated(names: Sequence[str], where: str) -> None:
    """Raise InputError if two columns have one name."""
    [(name, count)] = Counter(names).most_common(1) or [("", 0)]
    if count > 1:
        raise InputError(f"the column {name!r} is there {count} times", where=where, fix="keep one of them")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of every line up to the last that is not blank."""
    blank: list[int] = []
    with _opened(path) as file:
        for number, raw in enumerate(file, 1):
            text = _decoded(raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw, f"{path}:{number}")
            if not text:
                blank.append(number)
                continue
            if blank:
                yield from ((skipped, "") for skipped in blank)
                blank = []
            yield number, text


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with translate_read_errors(path):
        require_regular(path)
        with open(path, "rb") as file:
            yield file


def _decoded(raw: bytes, where: str) -> str:
    if b"\0" in raw:
        fix = "mend the line; UTF-16 text: convert the file to UTF-8"
        raise InputError("a NUL byte, where UTF-8 text is needed", where=where, fix=fix)
    try:
        return raw.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid_utf8(where, error) from None


def _empty(where: str) -> InputError:
    return InputError("the file is empty", where=where, fix="fetch or write it again")


def _tab_separated(path: Path) -> Iterator[tuple[str, list[str]]]:
    for number, text in lines(path):
        yield f"{path}:{number}", text.split("\t")


def _comma_separated(path: Path) -> Iterator[tuple[str, list[str]]]:
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader((text + "\n" for _, text in lines(path)), strict=True)
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fix = 'quote a text that holds commas or quotes: "He said ""no"", twice"'
            raise InputError(f"not valid CSV: {error}", where=where, fix=fix) from None
        yield where, cells or [""]


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, text in lines(path):
        if text and not text.isspace():
            where = f"{path}:{number}"
            yield where, json_object(text, where, JSON_FIX)


def _parquet(path: Path) -> Table:
    import pyarrow.parquet as pq

    with _opened(path), translate_parquet_errors(f"{path}:1"):  # opened for its own faults
        file = pq.ParquetFile(path)
        names = tuple(file.schema_arrow.names)
    refuse_repeated(names, f"{path}:1")
    return Table(names, f"{path}:1", arrow_rows(path, file.iter_batches(batch_size=4096)), keyed=True)


def arrow_rows(name: Path | str, batches: Iterable[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of Arrow's record batches, placed as "NAME:row"."""
    number = 0
    with translate_parquet_errors(f"{name}:1"):
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield f"{name}:{number}", row


def _race(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
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
