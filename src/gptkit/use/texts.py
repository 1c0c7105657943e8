"""A file of texts to score, which is read line by line.

.txt      a text per line; blank lines are skipped
.jsonl    {"text": ...} per line; other keys are ignored
.tsv      two columns without a header, quoted as spreadsheets quote them or not at all: minimal pairs
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gptkit.errors import InputError
from gptkit.system.reading import json_string
from gptkit.tasks.files import checked_text, lines, tsv_rows

PAIRS = ".tsv"
SUFFIXES = (".txt", ".jsonl", PAIRS)


class Given(NamedTuple):
    """A text, or the two of a minimal pair, and where they were read."""

    texts: tuple[str, ...]
    where: str


def read_texts(path: Path) -> Iterator[Given]:
    """Yield the texts or pairs of a file; InputError, with the line, for a bad one and for a file without any."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        fix = 'pass a .txt with a text per line, a .jsonl of {"text": ...}, or a .tsv of pairs'
        raise InputError("neither .txt nor .jsonl nor .tsv", where=str(path), fix=fix)
    is_empty = True
    rows = tsv_rows(path) if suffix == PAIRS else ((where, [line]) for where, line in lines(path))
    for where, row in rows:
        if any(map(str.strip, row)):
            is_empty = False
            yield Given(_texts_of(row, suffix, where), where)
    if is_empty:
        raise InputError("no text in this file", where=str(path), fix="write one per line")


def _texts_of(row: Sequence[str], suffix: str, where: str) -> tuple[str, ...]:
    if suffix == PAIRS:
        if len(row) != 2:
            fix = "write the two texts of a pair with a tab between"
            raise InputError(f"{len(row)} column(s), expected 2", where=where, fix=fix)
        return tuple(checked_text(cell, name, where) for name, cell in zip(("first", "second"), row, strict=True))
    text = row[0] if suffix == ".txt" else json_string(row[0], "text", where)
    return (checked_text(text, "text", where),)
