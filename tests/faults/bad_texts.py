"""Text files, most of them bad, each made together with what must come of it.

For damaged UTF-8 Python's own decoder says where the damage is.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = ["some", "words", "of", "a", "text", "na\u00efve", "caf\u00e9", "\u65e5\u672c\u8a9e", "\U0001f600", "e\u0301"]
NOT_UTF8 = [b"\xff", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f", b"\xc3"]
ODD = [
    "\u2028",
    "\x0c",
    "\x0b",
    "\x85",
    "\x1b[2J",
    "\u202e",
    "\ufffe",
    "\u200b",
    "\ue000",
    "\x7f",
    "\x1c",
    "\U000e0001",
]


@dataclass(frozen=True)
class Read:
    """The file is read as these documents."""

    documents: tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """The file is refused: `says` is in the line, `place` follows the path (":line, byte offset"; None = anywhere)."""

    says: str
    place: str | None = ""


@dataclass(frozen=True)
class Case:
    """A file to be made, and what must come of it; `make`, if given, makes what is no plain file."""

    name: str
    content: bytes
    expected: Read | Refused
    make: Callable[[Path], object] | None = None


def some_text(random_: random.Random, lines: int = 12) -> str:
    """Return lines of words."""
    return "\n".join(" ".join(random_.choices(WORDS, k=random_.randint(2, 9))) for _ in range(lines)) + "\n"


def place_of(content: bytes, offset: int) -> str:
    return f":{content[:offset].count(10) + 1}, byte {offset}"


def undecodable(content: bytes) -> Refused:
    """Return the refusal of bytes that Python's decoder refuses."""
    return Refused("not valid UTF-8", place_of(content, refused_at(content)))


def refused_at(content: bytes) -> int:
    """Return the first byte that Python's decoder refuses, the end if there is none."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return len(content)


# --- plain text ---


def bad_utf8(random_: random.Random) -> Case:
    content = bytearray(some_text(random_).encode())
    at = random_.randrange(len(content) + 1)
    content[at:at] = random_.choice(NOT_UTF8)
    return Case("bad.txt", bytes(content), undecodable(bytes(content)))


def late_bad_utf8(random_: random.Random) -> Case:
    """Damage about a border between two chunks of reading."""
    content = b"x" * ((1 << 20) - random_.randint(0, 5)) + "\U0001f600\n".encode() + random_.choice(NOT_UTF8) + b" y"
    return Case("late.txt", content, undecodable(content))


def nul(random_: random.Random) -> Case:
    content = some_text(random_).encode()
    at = random_.randrange(len(content))
    content = content[:at] + b"\0" + content[at:]
    within = refused_at(content) < at  # a character, which it damages
    return Case("nul.txt", content, undecodable(content) if within else Refused("a NUL byte", place_of(content, at)))


def nothing(random_: random.Random) -> Case:
    content = random_.choice([b"", b" ", b"\n\n\n", b"\t \r\n", b"\xef\xbb\xbf", "\u3000\u00a0".encode(), b"\x0c\n"])
    return Case("nothing.txt", content, Refused("no text"))


def byte_order_mark(random_: random.Random) -> Case:
    text = some_text(random_)
    return Case("mark.txt", b"\xef\xbb\xbf" + text.encode(), Read((text,)))


def other_unicode(random_: random.Random) -> Case:
    encoding = random_.choice(["utf-16", "utf-32"])
    content = some_text(random_).encode(random_.choice([encoding, f"{encoding}-be"]))
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return Case("wide.txt", content, Read((content.decode(encoding),)))
    bad = min(content.index(0), refused_at(content))  # big end first, without a mark
    return Case("wide.txt", content, Refused("could be utf-", place_of(content, bad)))


def line_ends(random_: random.Random) -> Case:
    lines = some_text(random_).split("\n")
    text = "".join(line + random_.choice(["\n", "\r", "\r\n", "\r\r\n", "\n\r"]) for line in lines)
    return Case("ends.txt", text.encode(), Read((text.replace("\r\n", "\n").replace("\r", "\n"),)))


def odd_characters(random_: random.Random) -> Case:
    text = "".join(line + random_.choice(ODD) + "\n" for line in some_text(random_).split("\n"))
    return Case("odd.txt", text.encode(), Read((text,)))


def one_long_line(random_: random.Random) -> Case:
    text = some_text(random_, 400).replace("\n", " ") * 20
    return Case("long.txt", text.encode(), Read((text,)))


def random_bytes(random_: random.Random) -> Case:
    content = random_.choice([b"\xfe", b"\x89PNG", b"%PDF-1.7\xe2", b"PK\x03\x04\xff", b"\x7fELF\x80"])
    content += bytes(random_.choices(range(1, 256), k=random_.randint(1, 200)))
    return Case("binary.txt", content, undecodable(content) if not _decodes(content) else Read((content.decode(),)))


def _decodes(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


# --- gzip ---


def packed(random_: random.Random) -> Case:
    texts = [some_text(random_) for _ in range(random_.randint(1, 3))]  # several members are one text
    return Case("whole.txt.gz", b"".join(gzip.compress(text.encode()) for text in texts), Read(("".join(texts),)))


def wrongly_named(random_: random.Random) -> Case:
    text = some_text(random_).encode()
    if random_.random() < 0.5:
        return Case("packed.txt", gzip.compress(text), Refused("not named .gz"))
    return Case("plain.txt.gz", text, Refused("not compressed by gzip"))


def damaged_gzip(random_: random.Random) -> Case:
    content = bytearray(gzip.compress(some_text(random_, 60).encode(), mtime=0))
    kind = random_.randrange(3)
    if kind == 0:
        del content[random_.randrange(2, len(content)) :]
    elif kind == 1:  # the check sum and the length stand last
        content[-random_.randint(1, 8)] ^= 1 << random_.randrange(8)
    else:
        content += b"junk"
    return Case("damaged.txt.gz", bytes(content), Refused("damaged or truncated gzip file"))


def bad_utf8_packed(random_: random.Random) -> Case:
    case = bad_utf8(random_)
    return Case("bad.txt.gz", gzip.compress(case.content), case.expected)


# --- JSON lines ---

BAD_ROWS: list[tuple[bytes, str]] = [
    (b'{"text": "a"', "not valid JSON"),
    (b"{'text': 'a'}", "not valid JSON"),
    (b'{"text": "a"} x', "not valid JSON"),
    (b'{"text": "a",}', "not valid JSON"),
    (b'{"text": "a\\x"}', "not valid JSON"),
    (b'{"text": "a\tb"}', "not valid JSON"),
    (b'["a"]', "a JSON array"),
    (b'"a"', "a JSON string"),
    (b"null", "a JSON null"),
    (b"3", "a JSON number"),
    (b'{"content": "a"}', 'no "text"'),
    (b'{"Text": "a"}', 'no "text"'),
    (b"{}", 'no "text"'),
    (b'{"text": 3}', "a JSON number"),
    (b'{"text": null}', "a JSON null"),
    (b'{"text": true}', "a JSON boolean"),
    (b'{"text": ["a"]}', "a JSON array"),
    (b'{"text": {"a": 1}}', "a JSON object"),
    (b'{"text": "a", "n": NaN}', "NaN is not a JSON number"),
    (b'{"text": "a", "n": -Infinity}', "Infinity is not a JSON number"),
    (b'{"text": "a", "text": "b"}', "duplicate key"),
    (b'{"text": "a", "n": {"b": 1, "b": 2}}', "duplicate key"),
    (b'{"text": "\\ud800"}', "lone surrogate"),
    (b'{"text": "\\udc00\\ud800"}', "lone surrogate"),
    (b'{"text": "a\\u0000"}', "NUL"),
    (b'{"text": "a", "n": ' + b"[" * 100_000, "nested too deeply"),
    (b'{"n": ' + b'{"a": ' * 100_000, "nested too deeply"),
    (b'{"text": "a", "n": ' + b"9" * 5_000 + b"}", "not valid JSON"),
    (b'\xef\xbb\xbf{"text": "a"}', "not valid JSON"),
]


def bad_row(random_: random.Random) -> Case:
    row, says = random_.choice(BAD_ROWS)
    rows = [json.dumps({"text": some_text(random_, 1)}).encode() for _ in range(random_.randint(1, 9))]
    at = random_.randint(1, len(rows))
    rows[at:at] = [row]
    blank = random_.randint(0, 2)
    end = random_.choice([b"\n", b"\r\n"])
    return Case("rows.jsonl", end * blank + end.join(rows) + end, Refused(says, f":{at + 1 + blank}"))


def bad_bytes_in_a_row(random_: random.Random) -> Case:
    rows = [json.dumps({"text": some_text(random_, 1)}, ensure_ascii=False).encode() for _ in range(6)]
    content = bytearray(b"\n".join(rows))
    bad = random_.choice([b"\0", b"\xff", b"\xed\xa0\x80"])
    at = random_.randrange(len(content))
    content[at:at] = bad
    whole = bytes(content)
    if bad == b"\0":
        return Case("bytes.jsonl", whole, Refused("NUL", place_of(whole, at)))
    return Case("bytes.jsonl", whole, undecodable(whole))


def good_rows(random_: random.Random) -> Case:
    texts = [some_text(random_, 2).replace("\n", "\r\n") for _ in range(random_.randint(2, 9))]
    end = random_.choice(["\n", "\r\n", "\n\n", "\n \t\n"])
    content = end.join(json.dumps({"text": one, "n": 1.5}, ensure_ascii=random_.random() < 0.5) for one in texts)
    packed_ = random_.random() < 0.3
    data = random_.choice([b"", b"\xef\xbb\xbf"]) + content.encode()
    name = "good.jsonl.gz" if packed_ else "good.jsonl"
    return Case(name, gzip.compress(data) if packed_ else data, Read(tuple(texts)))


# --- parquet ---


def parquet(table: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=2)
    return buffer.getvalue()


BAD_TABLES: list[tuple[dict[str, Any], str, str]] = [
    ({"content": ["a"]}, 'no column "text"', ""),
    ({"text": [1, 2]}, "holds int64", ""),
    ({"text": [b"a"]}, "holds binary", ""),
    ({"text": [["a"]]}, "holds list", ""),
    ({"text": ["a", "b", None]}, "null", ", row 3"),
    ({"text": ["a", "b\0"]}, "NUL", ", row 2"),
]


def bad_table(random_: random.Random) -> Case:
    columns, says, place = random_.choice(BAD_TABLES)
    return Case("bad.parquet", parquet(pa.table(columns)), Refused(says, place))


def damaged_parquet(random_: random.Random) -> Case:
    content = bytearray(parquet(pa.table({"text": [some_text(random_, 2) for _ in range(5)]})))
    if random_.random() < 0.5:
        del content[random_.randrange(len(content)) :]
    else:  # the footer says where all else lies
        content[-random_.randint(1, 8)] ^= 0xFF
    return Case("damaged.parquet", bytes(content), Refused("parquet", None))


# --- what is no file, and names ---


def fifo(path: Path) -> None:
    os.mkfifo(path)


def looping(path: Path) -> None:
    path.symlink_to(path.name)


def bound_socket(path: Path) -> None:
    folder = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(folder)


NO_FILES: list[tuple[Callable[[Path], object], str]] = [
    (fifo, "not a regular file"),
    (looping, "symbolic links"),
    (bound_socket, "not a regular file"),
    (lambda path: path.symlink_to("nowhere"), "not found"),
    (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    (lambda path: path.symlink_to("/dev/stdin"), "not a regular file"),
    (lambda path: path.mkdir(), "no text file found"),
    (lambda path: None, "not found"),
]


def no_file(random_: random.Random) -> Case:
    make, says = random_.choice(NO_FILES)
    return Case("thing.txt", b"", Refused(says, ""), make)


NAMES = [
    "a b.txt",
    "a\nb.txt",
    "a\x1b[2Jb.txt",
    "\u202egpj.txt",
    "[a]*.txt",
    "~.txt",
    "%s{x}.txt",
    "\udcff.txt",
    "A.TXT",
]


def odd_name(random_: random.Random) -> Case:
    """Names that a shell, a terminal or a format string would stumble over, of good and of bad files."""
    case = random_.choice([bad_utf8, odd_characters])(random_)
    return Case(random_.choice(NAMES), case.content, case.expected)


def unknown_kind(random_: random.Random) -> Case:
    name = random_.choice(["a.pdf", "a.json", "a", "a.txt.bak", "a.txt.gz.gz", "a.csv", "a.txt.zip", "a.parquet.gz"])
    return Case(name, some_text(random_).encode(), Refused("does not read this kind"))


KINDS: list[Callable[[random.Random], Case]] = [
    *(bad_utf8, late_bad_utf8, nul, nothing, byte_order_mark, other_unicode, line_ends, odd_characters, one_long_line),
    *(random_bytes, packed, wrongly_named, damaged_gzip, bad_utf8_packed, bad_row, bad_bytes_in_a_row, good_rows),
    *(bad_table, damaged_parquet, no_file, odd_name, unknown_kind),
]
