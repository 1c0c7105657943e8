"""enwik8 and text8: the first 100,000,000 bytes of Wikipedia, as XML and as bare letters; their last twentieth."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from gptkit.errors import InputError
from gptkit.system.reading import invalid_utf8
from gptkit.tasks.rows import opened
from gptkit.tasks.text_corpora import AS_IT_IS, PER_BYTE, PER_CHARACTER, Document, Stream, corpus_row, table_3

HUTTER_BYTES = 100_000_000
HUTTER_TEST_BYTES = 5_000_000
_ZIP_MAGIC = b"PK\x03\x04"


def last_twentieth(path: Path) -> Iterator[Document]:
    """Yield the test part of enwik8 or text8, plain or zipped: the last 5,000,000 of its 100,000,000 bytes."""
    raw = _last_bytes(path)
    first = HUTTER_BYTES - HUTTER_TEST_BYTES
    # The first character may be cut in two; what is longer is no UTF-8, and decoding says so.
    torn = next((place for place, byte in enumerate(raw[:4]) if byte & 0xC0 != 0x80), 0)
    try:
        text = raw[torn:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid_utf8(f"{path}, byte {first + torn + error.start}", error) from None
    if "\0" in text:
        where = f"{path}, byte {first + raw.index(0)}"
        raise InputError("binary data (a NUL byte), where UTF-8 text is needed", where=where, fix="fetch it again")
    yield Document(text, f"{path}, byte {first + torn}")


def _last_bytes(path: Path) -> bytes:
    with opened(path) as file:
        if file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC:
            return _last_zipped(path)
        _require_size(path, file.seek(0, io.SEEK_END))
        file.seek(HUTTER_BYTES - HUTTER_TEST_BYTES)
        return file.read()


def _last_zipped(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) != 1:
                names = ", ".join(member.filename for member in members[:4]) or "nothing"
                raise InputError(f"an archive of {names}", where=str(path), fix="unpack it and name the file")
            _require_size(path, members[0].file_size)
            with archive.open(members[0]) as file:
                file.seek(HUTTER_BYTES - HUTTER_TEST_BYTES)
                return file.read()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"damaged archive: {error}", where=str(path), fix="fetch it again") from None


def _require_size(path: Path, size: int) -> None:
    if size != HUTTER_BYTES:
        message = f"{size:,} bytes, where the corpus has {HUTTER_BYTES:,}"
        raise InputError(message, where=str(path), fix="fetch the whole file again")


_BYTES = Stream(AS_IT_IS, "the file as it is", PER_BYTE)
_CHARACTERS = Stream(AS_IT_IS, "the file as it is", PER_CHARACTER)

BENCHMARKS = (
    corpus_row(
        "enwik8",
        "the last 5,000,000 bytes of enwik8",
        "enwik8 or enwik8.zip",
        ("enwik8", "enwik8.zip"),
        "mattmahoney.net/dc/enwik8.zip",
        last_twentieth,
        _BYTES,
        _BYTES.sliding(*table_3("bits_per_byte", 1.16, 1.01, 0.97, 0.93)),
        _BYTES.sliding_half(),
        overlap=(0.0750, 0.0631),
        within_lines=True,
    ),
    corpus_row(
        "text8",
        "the last 5,000,000 characters of text8",
        "text8 or text8.zip",
        ("text8", "text8.zip"),
        "mattmahoney.net/dc/text8.zip",
        last_twentieth,
        _CHARACTERS,
        _CHARACTERS.sliding(*table_3("bits_per_character", 1.17, 1.06, 1.02, 0.98)),
        _CHARACTERS.sliding_half(),
        overlap=(0.0234, 0.0394),
        within_lines=True,
    ),
)
