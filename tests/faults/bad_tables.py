"""Files of task data: a good table, damaged in one row by a fault of known kind, as .csv, .tsv, .jsonl or .parquet.

Each says which line must be named, and with which words.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

DEEP = 100_000
LONG = "x" * 200_000
Row = dict[str, Any]

WORDS = ["a", "red", "cat", "saw", "my", "na\u00efve", "\u65e5\u672c", "\U0001f600", "it's", "3,5", "#7"]
# task -> a row, with every column that it needs; the label's last
LABELS: dict[str, list[Any]] = {
    "sst2": ["positive", "negative", "0", "1"],
    "rte": ["entailment", "not_entailment", "0", "1"],
    "stsb": ["0", "5", "2.5", "1e0"],
    "copa": ["0", "1"],
}
FIELDS = {
    "sst2": ("text",),
    "rte": ("premise", "hypothesis"),
    "stsb": ("first", "second"),
    "copa": ("context", "choice1", "choice2"),
}
KINDS = ("csv", "tsv", "jsonl", "parquet")


@dataclass
class Table:
    """A file to be: its rows, then its bytes as `write` leaves them; which line is damaged and what must be said.

    `says` None: it is read, all rows with all texts.
    """

    task: str
    kind: str
    rows: list[Row]
    at: int
    says: str | None = None
    line: int | None = None  # None: that of row `at`
    content: bytes | None = None  # in place of the rows
    make: Callable[[Path], object] | None = None  # in place of a file
    split: str = "train"
    name: str = field(default="")

    @property
    def place(self) -> str:
        first = 2 if self.kind in ("csv", "tsv") else 1
        return f":{self.at + first if self.line is None else self.line}"

    def write(self, folder: Path) -> Path:
        path = folder / (self.name or f"{self.split}.{self.kind}")
        if self.make is not None:
            self.make(path)
        else:
            path.write_bytes(written(self.rows, self.kind) if self.content is None else self.content)
        return path


def written(rows: list[Row], kind: str) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind == "parquet":
        buffer = io.BytesIO()
        names = list(dict.fromkeys(name for row in rows for name in row))
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), buffer)
        return buffer.getvalue()
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    if kind == "tsv":
        return "".join("\t".join(map(str, row)) + "\n" for row in cells).encode()
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(cells)
    return text.getvalue().encode()


def good(random_: random.Random, kind: str | None = None, task: str | None = None) -> Table:
    """Return a good table of a task in a kind of file; a row of it is chosen for the damage."""
    task = task or random_.choice(list(FIELDS))
    kind = kind or random_.choice(KINDS)
    count = random_.randint(3, 9)
    rows = []
    for _ in range(count):
        row: Row = {name: " ".join(random_.choices(WORDS, k=random_.randint(2, 6))) for name in FIELDS[task]}
        rows.append(row | {"label": random_.choice(LABELS[task])})
    return Table(task, kind, rows, at=random_.randrange(1, count))


# --- columns ---


def missing_column(random_: random.Random) -> Table:
    table = good(random_)
    lost = random_.choice([*FIELDS[table.task], "label"])
    for row in table.rows:
        del row[lost]
    table.says, table.line = "no column", 1  # which one: that of the authors' form may be nearer
    return table


def extra_column(random_: random.Random) -> Table:
    table = good(random_)
    name = random_.choice(["more", "Label", "text ", "label2", "\u202e"])
    table.rows = [row | {name: "x"} for row in table.rows]
    table.says, table.line = "unknown column", 1
    return table


def misspelt_column(random_: random.Random) -> Table:
    table = good(random_)
    name = FIELDS[table.task][0]
    table.rows = [{f"{key}s" if key == name else key: value for key, value in row.items()} for row in table.rows]
    table.says, table.line = "no column", 1
    return table


def long_column(random_: random.Random) -> Table:
    """A column whose name is of 200,000 characters is shown in part."""
    table = good(random_)
    table.rows = [row | {LONG: "x"} for row in table.rows]
    table.says, table.line = "unknown column", 1
    return table


def repeated_column(random_: random.Random) -> Table:
    table = good(random_, random_.choice(["csv", "tsv", "jsonl"]))
    name = FIELDS[table.task][0]
    if table.kind == "jsonl":
        lines = written(table.rows, "jsonl").decode().splitlines()
        lines[table.at] = lines[table.at][:-1] + f', "{name}": "x"}}'
        table.content, table.says = "\n".join(lines).encode(), "duplicate key"
        return table
    content = written([{"first again": "x", **row} for row in table.rows], table.kind)
    table.content = content.replace(b"first again", name.encode(), 1)
    table.says, table.line = "duplicate column", 1
    return table


def ragged_row(random_: random.Random) -> Table:
    table = good(random_, random_.choice(["csv", "tsv"]))
    row = table.rows[table.at]
    if random_.random() < 0.5:
        row["more"] = "x"
    else:
        del row[next(iter(row))]
    table.says = "column(s), expected"
    return table


def missing_key(random_: random.Random) -> Table:
    table = good(random_, "jsonl")
    row = table.rows[table.at]
    lost = random_.choice(list(row))
    del row[lost]
    table.says = f"no {lost!r} in this row"
    return table


# --- labels ---

WORDS_AS_LABELS: list[Any] = ["maybe", "7", "-1", "2.0", " ", "None", "nan", "True", "1" * 40, "\u0661", "0x1", LONG]
VALUES_AS_LABELS: list[Any] = [True, 7, -1, 0.5, float("1e300"), [1], {"a": 1}, 10**40, "", LONG]


def wrong_label(random_: random.Random) -> Table:
    table = good(random_, random_.choice(["csv", "tsv", "jsonl"]))
    values = VALUES_AS_LABELS if table.kind == "jsonl" else WORDS_AS_LABELS
    value = random_.choice([one for one in values if table.task != "stsb" or one not in (0.5, "2.0")])
    table.rows[table.at]["label"] = value
    table.says = "no label" if value == "" else "score" if table.task == "stsb" else "label"
    return table


def no_label(random_: random.Random) -> Table:
    table = good(random_)
    table.rows[table.at]["label"] = "" if table.kind in ("csv", "tsv") else None
    table.says = "no label"
    return table


def mixed_types(random_: random.Random) -> Table:
    """Indices may stand as numbers and as words: a rule, not a guess."""
    table = good(random_, "jsonl")
    for row in table.rows:
        if random_.random() < 0.5 and row["label"] in ("0", "1", "5"):
            row["label"] = int(row["label"])
    return table


def some_labelled(random_: random.Random) -> Table:
    table = good(random_, random_.choice(["csv", "tsv", "jsonl"]), random_.choice(["sst2", "rte", "copa"]))
    table.rows[table.at]["label"] = ""
    table.split, table.says = "test", "no label, although other rows have one"
    return table


def score_out_of_range(random_: random.Random) -> Table:
    table = good(random_, random_.choice(["csv", "tsv", "jsonl"]), "stsb")
    value = random_.choice(["5.0001", "-0.1", "1e999", "nan", "inf", "-Infinity"])
    table.rows[table.at]["label"] = value
    table.says = "out of range"
    return table


def not_a_number(random_: random.Random) -> Table:
    """NaN is no JSON; in a parquet file it is a number, and out of every range."""
    if random_.random() < 0.5:
        table = good(random_, "jsonl")
        table.rows[table.at]["label"] = random_.choice([float("nan"), float("inf"), -float("inf")])
        table.says = "is not a JSON number"
        return table
    table = good(random_, "parquet", "stsb")
    for row in table.rows:
        row["label"] = 1.5
    table.rows[table.at]["label"] = float("nan")
    table.says = "out of range"
    return table


# --- texts ---


def empty_text(random_: random.Random) -> Table:
    table = good(random_)
    table.rows[table.at][FIELDS[table.task][0]] = random_.choice(["", " ", "\u3000", "  "])
    table.says = "is empty"
    return table


def nul(random_: random.Random) -> Table:
    table = good(random_)
    table.rows[table.at][FIELDS[table.task][-1]] += "\0"
    table.says = "NUL"
    return table


def surrogate(random_: random.Random) -> Table:
    table = good(random_, "jsonl")
    table.rows[table.at][FIELDS[table.task][0]] = f"a{chr(random_.randrange(0xD800, 0xE000))}b"
    table.says = "lone surrogate"
    return table


def no_text(random_: random.Random) -> Table:
    table = good(random_, "jsonl")
    value = random_.choice([3, None, True, ["a"], {"a": "b"}, 1.5, []])
    table.rows[table.at][FIELDS[table.task][0]] = value
    table.says = "is missing" if value is None else "not a string"
    return table


def bad_utf8(random_: random.Random) -> Table:
    table = good(random_, random_.choice(["csv", "tsv", "jsonl"]))
    bad = random_.choice([b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe9"])
    table.rows[table.at][FIELDS[table.task][0]] = "BROKEN"
    table.content = written(table.rows, table.kind).replace(b"BROKEN", b"a" + bad + b"b")
    table.says = "not valid UTF-8"
    return table


def other_unicode(random_: random.Random) -> Table:
    table = good(random_, random_.choice(["csv", "tsv", "jsonl"]))
    encoding = random_.choice(["utf-16-le", "utf-16-be", "utf-32-le"])
    table.content = written(table.rows, table.kind).decode().encode(encoding)
    table.says, table.line = "a NUL byte; could be utf-", 1
    return table


# --- files ---


def nothing(random_: random.Random) -> Table:
    table = good(random_, random_.choice(["csv", "tsv", "jsonl"]))
    table.content = random_.choice([b"", b"\n\n", b"\xef\xbb\xbf", b"\r\n"])
    table.says, table.line = "empty", 1
    return table


def header_alone(random_: random.Random) -> Table:
    table = good(random_, random_.choice(["csv", "tsv"]))
    table.content = written(table.rows, table.kind).splitlines(keepends=True)[0] + b"\n" * random_.randint(0, 2)
    table.says, table.line = "no examples", 1
    return table


def blank_line(random_: random.Random) -> Table:
    """Within a table a blank line is a row without its cells."""
    table = good(random_, random_.choice(["csv", "tsv"]), random_.choice(["sst2", "rte", "stsb", "copa"]))
    lines = written(table.rows, table.kind).splitlines(keepends=True)
    lines.insert(table.at + 1, b"\n")
    table.content, table.says = b"".join(lines), "column(s), expected"
    return table


def open_quote(random_: random.Random) -> Table:
    table = good(random_, "csv")
    lines = written(table.rows, table.kind).splitlines(keepends=True)
    lines[table.at + 1] = b'"' + lines[table.at + 1].replace(b'"', b"")
    table.content, table.says = b"".join(lines).replace(b'"""', b'"'), "not valid CSV"
    return table


BAD_JSON = [
    (b"{", "not valid JSON"),
    (b"[1]", "a JSON array"),
    (b"null", "a JSON null"),
    (b"[" * DEEP, "nested too deeply"),
    (b'{"a":' * DEEP, "nested too deeply"),
    (b'{"label": ' + b"1" * 5000 + b"}", "not valid JSON"),
    (b'{"text": "a\tb"}', "not valid JSON"),
    (b"{'text': 1}", "not valid JSON"),
]


def bad_json(random_: random.Random) -> Table:
    table = good(random_, "jsonl")
    row, table.says = random_.choice(BAD_JSON)
    lines = written(table.rows, "jsonl").splitlines()
    lines[table.at] = row
    table.content = b"\n".join(lines)
    return table


def damaged_parquet(random_: random.Random) -> Table:
    table = good(random_, "parquet")
    content = bytearray(written(table.rows, "parquet"))
    if random_.random() < 0.5:
        del content[random_.randrange(len(content)) :]
    else:
        content[-random_.randint(1, 8)] ^= 0xFF
    table.content, table.says, table.line = bytes(content), "parquet", 1
    return table


def no_file(random_: random.Random) -> Table:
    makes: list[tuple[Callable[[Path], object], str]] = [
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.symlink_to(path.name), ""),
        (lambda path: path.mkdir(), "no file for the split"),
    ]
    table = good(random_, random_.choice(["csv", "tsv", "jsonl", "parquet"]))
    table.make, table.says = random_.choice(makes)
    table.line = -1  # the path alone, or the folder
    return table


def line_ends_and_marks(random_: random.Random) -> Table:
    table = good(random_, random_.choice(["csv", "tsv", "jsonl"]))
    content = written(table.rows, table.kind).replace(b"\n", b"\r\n") + b"\r\n" * random_.randint(0, 2)
    table.content = random_.choice([b"", b"\xef\xbb\xbf"]) + content
    return table


def quoted(random_: random.Random) -> Table:
    table = good(random_, "csv")
    table.rows[table.at][FIELDS[table.task][0]] = 'two\nlines, "quoted"\x1b[2J\u202e' + random_.choice(["", LONG])
    return table


FAULTS: list[Callable[[random.Random], Table]] = [
    *(good, missing_column, extra_column, misspelt_column, long_column, repeated_column, ragged_row, missing_key),
    *(wrong_label, no_label, mixed_types, some_labelled, score_out_of_range, not_a_number, empty_text, nul, surrogate),
    *(no_text, bad_utf8, other_unicode, nothing, header_alone, blank_line, open_quote, bad_json, damaged_parquet),
    *(no_file, line_ends_and_marks, quoted),
]
