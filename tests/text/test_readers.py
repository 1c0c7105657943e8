from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import re
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptkit.errors import InputError
from gptkit.text.readers import read_pieces


def texts(path: Path) -> list[str]:
    """Return the documents of a file."""
    documents: dict[int, str] = {}
    for text, document, _ in read_pieces(path):
        documents[document] = documents.get(document, "") + text
    return list(documents.values())


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=2)
    return buffer.getvalue()


ACCEPTED = {
    "plain.txt": (b"one\ntwo", ["one\ntwo"]),
    "upper.TXT": ("caf\u00e9 \U0001f600".encode(), ["caf\u00e9 \U0001f600"]),
    "mark.txt": (b"\xef\xbb\xbfone", ["one"]),
    "crlf.txt": (b"one\r\ntwo\rthree\n", ["one\ntwo\nthree\n"]),
    "empty.txt": (b"", [""]),
    "wide.txt": ("one\r\n\u4e2d".encode("utf-16"), ["one\n\u4e2d"]),
    "wide.jsonl": ('{"text": "\u4e2d"}\r\n{"text": "b"}'.encode("utf-16"), ["\u4e2d", "b"]),
    "big.txt": (codecs.BOM_UTF16_BE + "\u4e2d".encode("utf-16-be"), ["\u4e2d"]),
    "wider.txt": ("word".encode("utf-32"), ["word"]),
    "packed.txt.gz": (gzip.compress(b"one\r\n"), ["one\n"]),
    "wide.txt.gz": (gzip.compress("one\r\n".encode("utf-16")), ["one\n"]),
    "rows.jsonl": (b'{"text": "a\\r\\nb", "n": 1}\r\n\n{"text": ""}\n{"text": "c"}', ["a\r\nb", "", "c"]),
    "mark.jsonl": (b'\xef\xbb\xbf{"text": "\\ud83d\\ude00"}', ["\U0001f600"]),
    "rows.jsonl.gz": (gzip.compress(b'{"text": "a"}\n'), ["a"]),
    "none.jsonl": (b"\n", []),
    "rows.parquet": (parquet(pa.table({"n": [1, 2, 3], "text": ["a", "", "c\r\n"]})), ["a", "", "c\r\n"]),
    "large.parquet": (parquet(pa.table({"text": pa.array(["a"], pa.large_string())})), ["a"]),
    "coded.parquet": (parquet(pa.table({"text": pa.array(["a", "a"]).dictionary_encode()})), ["a", "a"]),
}

# name -> content, what is wrong, where it is (after the path)
REFUSED = {
    "latin.txt": (b"ok\nna\xefve", "not valid UTF-8: 0xef", ":2, byte 5"),
    "cut.txt": ("abc\u00e9".encode()[:-1], "not valid UTF-8: 0xc3", ":1, byte 3"),
    "surrogate.txt": (b"a\n\n\xed\xa0\x80", "not valid UTF-8", ":3, byte 3"),
    "late.txt": (b"x" * 70_000 + b"\n" * 2_000_000 + b"\xff", "not valid UTF-8: 0xff", ":2000001, byte 2070000"),
    "nul.txt": (b"a\nb\0c", "NUL", ":2, byte 3"),
    "unmarked.txt": ("word".encode("utf-16-le"), 'a NUL byte; could be utf-16-le ("word")', ":1, byte 1"),
    "packed.txt": (gzip.compress(b"a"), "not named .gz", ""),
    "plain.txt.gz": (b"text", "not compressed", ""),
    "truncated.txt.gz": (gzip.compress(b"text" * 9_999)[:-9], "truncated", ""),
    "flipped.txt.gz": (gzip.compress(b"text")[:-8] + b"\0" * 8, "damaged", ""),
    "late.txt.gz": (gzip.compress(b"a\nb\xff"), "not valid UTF-8: 0xff", ":2, byte 3"),
    "book.pdf": (b"%PDF", "does not read this kind", ""),
    "data.json": (b"[]", "does not read this kind", ""),
    "syntax.jsonl": (b'{"text": "a"}\n\n{"text": "b"', "not valid JSON", ":3"),
    "array.jsonl": (b'["text"]', "a JSON array", ":1"),
    "null.jsonl": (b"null", "a JSON null", ":1"),
    "missing.jsonl": (b'{"text": "a"}\n{"content": "b"}', "no \"text\" in this line (keys: 'content')", ":2"),
    "number.jsonl": (b'{"text": 5}', "a JSON number", ":1"),
    "alone.jsonl": (b'{"text": "\\ud800"}', "lone surrogate (\\ud800)", ":1"),
    "nul.jsonl": (b'{"text": "\\u0000"}', "NUL", ":1"),
    "raw.jsonl": (b'{"text": "a"}\n{"text": "\0"}', "NUL", ":2, byte 24"),
    "latin.jsonl": (b'{"text": "a"}\n{"text": "\xe9"}', "not valid UTF-8: 0xe9", ":2, byte 24"),
    "nan.jsonl": (b'{"text": "a", "score": NaN}', "NaN is not a JSON number", ":1"),
    "twice.jsonl": (b'{"text": "a", "text": "b"}', "duplicate key 'text'", ":1"),
    "deep.jsonl": (b'{"text": "a", "b": ' + b"[" * 100_000, "nested too deeply", ":1"),
    "huge.jsonl": (b'{"text": "a", "b": ' + b"1" * 5_000 + b"}", "not valid JSON", ":1"),
    "other.parquet": (parquet(pa.table({"content": ["a"]})), "no column \"text\" (columns: 'content')", ""),
    "number.parquet": (parquet(pa.table({"text": [1]})), "holds int64", ""),
    "null.parquet": (parquet(pa.table({"text": ["a", None]})), "null", ", row 2"),
    "nul.parquet": (parquet(pa.table({"text": ["a", "b", "\0"]})), "NUL", ", row 3"),
    "text.parquet": (b"text", "parquet", ""),
    "empty.parquet": (b"", "parquet", ""),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_accepted(tmp_path: Path, name: str) -> None:
    content, expected = ACCEPTED[name]
    (tmp_path / name).write_bytes(content)
    assert texts(tmp_path / name) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_where(tmp_path: Path, name: str) -> None:
    content, message, place = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)) as refusal:
        texts(tmp_path / name)
    assert refusal.value.where == f"{tmp_path / name}{place}"
    assert refusal.value.fix
    assert "\n" not in str(refusal.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.txt")
    (tmp_path / "directory.txt").mkdir()
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    (tmp_path / "dangling.txt").symlink_to("nowhere.txt")
    for path in [*tmp_path.iterdir(), tmp_path / "missing.txt", Path("x" * 300 + ".txt")]:
        with pytest.raises(InputError) as refusal:
            texts(path)
        assert refusal.value.where == str(path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", forbidden)  # chmod stops nobody who is root
    with pytest.raises(InputError, match="permission denied"):
        texts(tmp_path / "secret.txt")


@pytest.mark.parametrize("separator", [" ", "\n", ""])
def test_memory_stays_flat_on_one_long_document(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "long.txt"
    line = "".join(f"word{i}" + separator for i in range(100_000))
    path.write_text(line * 20)
    tracemalloc.start()
    try:
        size = sum(len(piece.text) for piece in read_pieces(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == len(line) * 20
    assert peak < 10 * 2**20


def test_a_long_row_is_cut_and_stays_one_document(tmp_path: Path) -> None:
    text = "some words\n" * 20_000
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": text}) + "\n" + json.dumps({"text": "b"}))
    pieces = list(read_pieces(tmp_path / "rows.jsonl"))
    assert {piece.document for piece in pieces} == {0, 1}
    assert len(pieces) > 3
    assert texts(tmp_path / "rows.jsonl") == [text, "b"]
