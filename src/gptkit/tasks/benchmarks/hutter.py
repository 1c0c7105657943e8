"""enwik8 and text8: the last twentieth of the first 100,000,000 bytes of Wikipedia, as XML and as bare letters.

The bytes are what is measured, so neither marks nor CR are dropped, and --encoding does not apply.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

from gptkit.errors import InputError
from gptkit.scoring.running_text import Reading
from gptkit.system.reading import invalid_utf8
from gptkit.tasks.files import opened
from gptkit.tasks.task import Evaluation, gpt2
from gptkit.tasks.text_corpora import PER_BYTE, Documents, Stream, corpus_row

HUTTER_BYTES = 100_000_000
HUTTER_TEST_BYTES = 5_000_000
PER_CHARACTER = ("bits_per_character", "token_perplexity", "word_perplexity", "bits_per_byte")
_ZIP_MAGIC = b"PK\x03\x04"


def last_twentieth(path: Path) -> Documents:
    """Yield the test split of enwik8 or text8, plain or zipped: the last 5,000,000 of its 100,000,000 bytes."""
    raw = _last_bytes(path)
    first = HUTTER_BYTES - HUTTER_TEST_BYTES
    # Skip the rest of a character that the split cuts, 3 bytes at most; decoding reports more as invalid UTF-8.
    torn = next((place for place, byte in enumerate(raw[:4]) if byte & 0xC0 != 0x80), 0)
    try:
        text = raw[torn:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid_utf8(f"{path}, byte {first + torn + error.start}", error) from None
    if "\0" in text:
        where = f"{path}, byte {first + raw.index(0)}"
        raise InputError("binary data (a NUL byte), not UTF-8 text", where=where, fix="fetch it again")
    yield text, f"{path}, byte {first + torn}"


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
                message = f"the archive must hold one file, but holds {names}"
                raise InputError(message, where=str(path), fix="unpack it and pass the file")
            _require_size(path, members[0].file_size)
            with archive.open(members[0]) as file:
                file.seek(HUTTER_BYTES - HUTTER_TEST_BYTES)
                return file.read()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"damaged archive: {error}", where=str(path), fix="fetch it again") from None


def _require_size(path: Path, size: int) -> None:
    if size != HUTTER_BYTES:
        message = f"{size:,} bytes, but the corpus has {HUTTER_BYTES:,}"
        raise InputError(message, where=str(path), fix="fetch the whole file again")


def _row(name: str, measures: tuple[str, ...], bits: tuple[float, ...], overlap: tuple[float, float]) -> Evaluation:
    stream = Stream(Reading("as they are"), "the unchanged file", measures)
    return corpus_row(
        name,
        (name, f"{name}.zip"),
        "mattmahoney.net/dc/enwik8.zip",
        last_twentieth,
        stream,
        stream.sliding(*gpt2(measures[0], *bits)),
        stream.sliding_half(),
        overlap=overlap,
        within_lines=True,
    )


BENCHMARKS = (
    _row("enwik8", PER_BYTE, (1.16, 1.01, 0.97, 0.93), (0.0750, 0.0631)),
    _row("text8", PER_CHARACTER, (1.17, 1.06, 1.02, 0.98), (0.0234, 0.0394)),
)
