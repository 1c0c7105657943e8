"""Find a benchmark's files by their authors' names, and stream their rows: TSV, CSV, JSON lines and parquet.

Names are matched in any case. Line ends are LF or CR LF; blank lines at the end are ignored. Whatever cannot be read is
an InputError that names file and line.
"""

from __future__ import annotations

import csv
import fnmatch
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gptkit.errors import InputError, UsageError, nearest
from gptkit.system.encodings import MARK
from gptkit.system.reading import (
    json_object,
    not_text,
    open_text,
    require_regular,
    translate_parquet_errors,
    translate_read_errors,
    unusable_character,
)
from gptkit.tasks.task import KeyedRows, Kind
from gptkit.text.examples import Example

FileSet = tuple[str, ...]  # paths that belong together; * is a wildcard, a slash at the end marks a folder
LONGEST_CELL = 2**31 - 1  # a text may be a book; the default limit of the csv module is 131,072 characters
JSON_FIX = """write one JSON object a line, such as {"text": "...", "label": "..."} (of an array: jq -c '.[]' FILE)"""
# What to do with files that are not read, by the end of their names.
_CURES = {
    ".gz": "decompress the .gz (gunzip)",
    ".json": "write a .json array as .jsonl (jq -c '.[]' FILE)",
    ".xlsx": "save an .xlsx as CSV UTF-8",
    ".txt": "rename a .txt with tabs to .tsv",
    ".parquet/": "write a .parquet folder as one file (pandas: read_parquet, to_parquet)",
}
# Tab-separated cells in which quotes stand only around a cell, and doubled within it: as spreadsheets and pandas write.
_CELL = r'(?:"(?:[^"]|"")*+"|[^"\t\n]*+)'
_QUOTED = re.compile(rf"{_CELL}(?:\t{_CELL})*+")
_QUOTES_WITHIN = re.compile(r'[^\t\n]""|""[^\t\n]')


def find_files(evaluation: str, data: str | None, sets: Sequence[FileSet], *, source: str) -> list[Path]:
    """Return the files of the first set that is complete in DATA or in DATA/<evaluation>.

    DATA may itself be the file of a set of one. UsageError without DATA, InputError if no set is complete; `source`
    tells the user where to get the files.
    """
    wanted = "; ".join(dict.fromkeys(" + ".join(names) for names in sets))
    fix = f"pass --data DIR, a folder with {wanted} ({source})"
    if data is None:
        raise UsageError(f"{evaluation} needs its data", where="--data", fix=fix)
    if data.startswith("hf:"):
        raise UsageError(f"{evaluation} is read from its authors' files, not from the hub", where="--data", fix=fix)
    folder = Path(data).expanduser()
    if folder.is_file() and any(len(names) == 1 for names in sets):
        return [folder]
    require_folder(folder, f"the folder with {wanted} ({source})")
    found = first_complete(roots(folder, (evaluation,)), sets)
    if found is None:
        raise not_found(f"no file for {evaluation}", folder, wanted, evaluation)
    return found[1]


def require_folder(path: Path, what: str) -> None:
    """Raise InputError unless --data is a folder; the fix is to pass `what`."""
    if not path.is_dir():
        problem = "not a folder" if path.exists() else "no such file or folder"
        raise InputError(problem, where=f"--data {path}", fix=f"pass {what}")


def first_complete(folders: Iterable[Path], sets: Sequence[FileSet]) -> tuple[int, list[Path]] | None:
    """Return the index and the files of the first complete set in the first folder that has one, else None."""
    for folder in folders:
        for number, names in enumerate(sets):
            paths = [path for name in names if (path := find(folder, name)) is not None]
            if len(paths) == len(names):
                return number, paths
    return None


def roots(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the folder and its subfolders with one of the names, compared without case and punctuation."""
    wanted = {_plain(name) for name in names}
    return [folder, *(path for path in entries(folder) if _plain(path.name) in wanted and path.is_dir())]


def find(root: Path, pattern: str) -> Path | None:
    """Return the file, or for NAME/ the folder, that matches a path with wildcards, None if there is none.

    An exact match comes first, then one in any case; InputError if two match.
    """
    found = root
    for part in Path(pattern).parts:
        if os.path.exists(found / part):
            found = found / part
            continue
        similar = [path for path in entries(found) if fnmatch.fnmatchcase(_folded(path.name), _folded(part))]
        if not similar:
            return None
        if len(similar) > 1:
            names = " and ".join(path.name for path in similar[:2])
            raise InputError(f"{names} both match {part}", where=str(found), fix="keep one of them")
        [found] = similar
    return found if found.is_dir() == pattern.endswith("/") else None


def entries(folder: Path) -> list[Path]:
    """Return the sorted contents of a folder, nothing for anything else."""
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        fix = "check its permissions"
        raise InputError(f"the folder cannot be read: {error.strerror}", where=str(folder), fix=fix) from None


def not_found(what: str, folder: Path, looked_for: str, name: str) -> InputError:
    """Return an error that lists what was looked for and what is in the folder instead."""
    found = [path.name + "/" * path.is_dir() for path in entries(folder)]
    there = ", ".join(found[:8]) or "nothing"
    message = f"{what}: looked for {looked_for} in the folder and in {name}/ (any case); found {there}"
    similar = [file for file in map(_folded, found) if f"{file.partition('.')[0]}." in _folded(looked_for)]
    cures = [cure for ending, cure in _CURES.items() if any(file.endswith(ending) for file in similar)]
    wanted = Path(looked_for)
    near = nearest(wanted.stem, [Path(file).stem for file in found if Path(file).suffix == wanted.suffix])
    fix = f"did you mean {near}{wanted.suffix}?" if near else "; ".join(["check the path, or add the files", *cures])
    return InputError(message, where=f"--data {folder}", fix=fix)


def _plain(name: str) -> str:
    return re.sub(r"[-_. ]", "", _folded(name))


def _folded(name: str) -> str:
    """Return a name without its case, and with accents composed: macOS and some archives decompose them."""
    return unicodedata.normalize("NFC", name.lower())


@dataclass(frozen=True)
class Table:
    """The rows of a file.

    A row is a list in the order of `names`, the cells of the file's first line; with `keyed` it is a dict, and `names`
    are the keys of the first row.
    """

    names: tuple[str, ...]
    names_at: str  # file:line
    rows: Iterator[tuple[str, Any]]  # (file:line, row)
    keyed: bool


def open_table(path: Path, kind: Kind | Callable[[Path], KeyedRows], *, may_be_quoted: bool = False) -> Table:
    """Open a file, or a folder that `kind` reads. In a .tsv that may not be quoted, quotes are text."""
    if kind in ("tsv", "csv"):
        rows = _separated(path, ",\t;|") if kind == "csv" else tsv_rows(path, may_be_quoted=may_be_quoted)
        where, names = next(rows, (f"{path}:1", None))
        if names is None:
            raise _empty(where)
        return Table(tuple(names), where, rows, keyed=False)
    if kind == "parquet":
        return _parquet(path)
    keyed = kind(path) if callable(kind) else _json_lines(path)
    first = next(keyed, None)
    if first is None:
        raise _empty(f"{path}:1")
    return Table(tuple(first[1]), first[0], itertools.chain([first], keyed), keyed=True)


def tsv_rows(path: Path, *, may_be_quoted: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Return the rows of cells of a .tsv; quotes are text if it may not be quoted, or is not."""
    if may_be_quoted and _is_quoted(path):
        return _separated(path, "\t")
    return ((where, text.split("\t")) for where, text in lines(path))


def open_rows(path: Path, *, fix: str) -> KeyedRows:
    """Return the rows of a .jsonl or .parquet; `fix` is the fix for any other file."""
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".parquet"):
        raise InputError("neither .jsonl nor .parquet", where=str(path), fix=fix)
    return open_table(path, "parquet" if suffix == ".parquet" else "jsonl").rows


def cells(row: Mapping[str, Any], where: str, *keys: str) -> list[Any]:
    """Return the values of keys of a row; InputError with all keys that it lacks."""
    if missing := ", ".join(repr(key) for key in keys if key not in row):
        found = ", ".join(map(repr, list(row)[:8])) or "none"
        raise InputError(f"no key {missing} (keys: {found})", where=where, fix=f"add {missing} to every row")
    return [row[key] for key in keys]


def text_cells(row: Mapping[str, Any], where: str, *keys: str) -> list[str]:
    """Return the texts of keys of a row; see cells and checked_text."""
    return [checked_text(text, key, where) for key, text in zip(keys, cells(row, where, *keys), strict=True)]


def checked_text(value: Any, name: str, where: str) -> str:
    """Return a cell's text; InputError if it is not a string, is blank, or cannot be encoded as UTF-8."""
    if type(value) is not str:
        found = "missing" if value is None else f"{quoted(value)}, not a string"
        raise InputError(f"{name!r} is {found}", where=where, fix="write a string, or drop the row")
    if not value or value.isspace():
        raise InputError(f"{name!r} is empty", where=where, fix="fill it in, or drop the row")
    if ("\0" in value or not value.isascii()) and (problem := unusable_character(value)):
        raise InputError(f"{name!r} contains {problem}", where=where, fix="correct or drop the row")
    return value


def quoted(value: Any) -> str:
    """Return a cell as error messages show it."""
    return repr(value)[:60]


def refuse_duplicate_ids(examples: Sequence[Example]) -> None:
    """Raise InputError if two examples have the same identifier, by which two evaluations are paired."""
    seen: dict[str, str] = {}
    for example in examples:
        if example.identifier in seen:
            message = f"duplicate id {example.identifier!r}, first seen at {seen[example.identifier]}"
            raise InputError(message, where=example.where, fix="keep one of the two")
        seen[example.identifier] = example.where


def refuse_duplicate_columns(names: Sequence[str], where: str) -> None:
    """Raise InputError if two columns have the same name."""
    [(name, count)] = Counter(names).most_common(1) or [("", 0)]
    if count > 1:
        raise InputError(f"duplicate column {name!r} ({count} times)", where=where, fix="keep one of them")


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ("file:line", text) for every line up to the last one that is not empty."""
    empty: list[tuple[str, str]] = []
    number = 0
    with open_text(path, newline="\n") as file:
        for raw in file:
            if "\0" in raw:
                raise not_text(path)
            # A program that writes CR LF for LF makes CR CR LF of CR LF; each of joined files begins with its own mark.
            for text in raw.lstrip(MARK).rstrip("\r\n").split("\r"):
                number += 1
                empty.append((f"{path}:{number}", text))
                if text:
                    yield from empty
                    empty.clear()


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading bytes; whatever is wrong with it is an InputError."""
    with translate_read_errors(path):
        require_regular(path)
        with open(path, "rb") as file:
            yield file


def _empty(where: str) -> InputError:
    return InputError("the file is empty", where=where, fix="fetch or write it again")


def _is_quoted(path: Path) -> bool:
    """Return whether a .tsv has quoted cells, the first one or some with quotes within, and no other quotes."""
    found, quotes, parts = False, 0, list[str]()
    for number, (_, line) in enumerate(lines(path)):
        found = found or (number == 0 and line.startswith('"'))
        quotes += line.count('"')
        parts.append(line)
        if quotes % 2:  # the line ends within a cell
            continue
        row = "\n".join(parts)
        parts.clear()
        found = found or _QUOTES_WITHIN.search(row) is not None
        if not _QUOTED.fullmatch(row):
            return False
    return found and not parts


def _separated(path: Path, separators: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of cells, some of them quoted.

    The separator is that of a first line `sep=;`, as Excel writes it, else the one that the first line has most of.
    """
    csv.field_size_limit(LONGEST_CELL)
    _, header = next(lines(path), ("", ""))
    named = re.fullmatch(r'"?sep=([^"\w ])"?', header, re.IGNORECASE)
    separator = named[1] if named else max(separators, key=header.count)
    skipped = 1 if named else 0
    texts = (text + "\n" for _, text in itertools.islice(lines(path), skipped, None))
    reader = csv.reader(texts, delimiter=separator, strict=True)
    while True:
        where = f"{path}:{reader.line_num + skipped + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fix = 'quote a text with commas or quotes: "He said ""no"", twice"'
            raise InputError(f"not valid CSV: {error}", where=where, fix=fix) from None
        yield where, cells or [""]


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, text in lines(path):
        if text and not text.isspace():
            yield where, json_object(text, where, JSON_FIX)


def _parquet(path: Path) -> Table:
    import pyarrow.parquet as pq

    with opened(path), translate_parquet_errors(f"{path}:1"):  # opened() checks the file itself
        file = pq.ParquetFile(path)
        names = tuple(file.schema_arrow.names)
    refuse_duplicate_columns(names, f"{path}:1")
    return Table(names, f"{path}:1", arrow_rows(path, file.iter_batches(batch_size=4096)), keyed=True)


def arrow_rows(name: Path | str, batches: Iterable[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of Arrow record batches, located as "NAME:row"."""
    number = 0
    with translate_parquet_errors(f"{name}:1"):
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield f"{name}:{number}", row
