"""Find text files, and stream documents from .txt, .jsonl (both also .gz) and .parquet in pieces, in constant memory.

    kind       a document is         its text
    .txt       the file              UTF-8; a byte order mark is dropped, CR LF and CR become LF (as in open())
    .jsonl     a line                the string "text", unchanged; blank lines are skipped
    .parquet   a row                 the string column "text", unchanged

Nothing is guessed: whatever cannot be read is an InputError with file, line and byte.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gptkit.errors import InputError
from gptkit.system.reading import (
    decoded,
    invalid_utf8,
    json_string,
    require_regular,
    translate_parquet_errors,
    translate_read_errors,
    unusable_character,
)
from gptkit.text.pieces import Piece, cut

CHUNK_BYTES = 1 << 20
LONGEST_JSON_LINE = 1 << 28
Reader = Callable[[Path], Iterator[Piece]]
KINDS = ".txt, .txt.gz, .jsonl, .jsonl.gz, .parquet"

_GZIP_MAGIC = b"\x1f\x8b"
_OTHER_UNICODE = (  # in this order, because UTF-32's little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def read_pieces(path: Path) -> Iterator[Piece]:
    """Yield the pieces of all documents in a file, numbered from 0; an empty document is one empty piece."""
    reader = _required_reader(path)
    with translate_read_errors(path):
        require_regular(path)
        yield from reader(path)


def check_files(arguments: Sequence[str]) -> None:
    """Raise the errors of paths, folders and globs that can be found without reading a file."""
    for file in find_files(arguments)[0]:
        _required_reader(file.path)


def _required_reader(path: Path) -> Reader:
    reader = reader_of(path)
    if reader is None:
        raise InputError(
            f"gptkit does not read this kind of file: {path.name}",
            where=str(path),
            fix=f"use {KINDS}; if it is plain text, rename it to end in .txt",
        )
    return reader


def read_plain_text(path: Path) -> Iterator[Piece]:
    """Yield the pieces of a text file, whatever its suffix."""
    with translate_read_errors(path):
        require_regular(path)
        yield from _read_text(path)


def reader_of(path: Path) -> Reader | None:
    """Return the reader for a file of this suffix, None if there is none."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".txt"):
        return _read_text
    if name.endswith(".jsonl"):
        return _read_json_lines
    return _read_parquet if path.name.lower().endswith(".parquet") else None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a plain or gzip file for reading bytes, past a UTF-8 byte order mark."""
    with open(path, "rb") as raw:
        compressed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        named_gzip = path.name.lower().endswith(".gz")
        if compressed and not named_gzip:
            fix = f"rename it to {path.name}.gz"
            raise InputError("compressed by gzip, but not named .gz", where=str(path), fix=fix)
        if named_gzip and not compressed and os.fstat(raw.fileno()).st_size > 0:
            fix = f"rename it to {path.name[:-3]}"
            raise InputError("named .gz, but not compressed by gzip", where=str(path), fix=fix)
        file = io.BufferedReader(gzip.GzipFile(fileobj=raw), CHUNK_BYTES) if compressed else raw
        start = file.peek(4)
        for mark, encoding in _OTHER_UNICODE:
            if start.startswith(mark):
                fix = f"convert it: iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}"
                raise InputError(f"{encoding} text, where UTF-8 is needed", where=f"{path}:1, byte 0", fix=fix)
        if start.startswith(codecs.BOM_UTF8):
            file.read(len(codecs.BOM_UTF8))
        yield file


def _read_text(path: Path) -> Iterator[Piece]:
    with _opened(path) as file:
        for text in cut(_decoded(path, file)):
            yield Piece(text, 0, str(path))


def _decoded(path: Path, file: BinaryIO) -> Iterator[str]:
    """Yield a file's text with every line end as LF."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    while True:
        pending = len(decoder.getstate()[0])
        position = file.tell() - pending
        chunk = file.read(CHUNK_BYTES)
        nul = chunk.find(b"\0")
        if nul >= 0:
            raise _binary(_place(path, position + pending + nul))
        try:
            yield decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise invalid_utf8(_place(path, position + error.start), error) from None
        if not chunk:
            return


def _place(path: Path, offset: int) -> str:
    """Return "file:line, byte N" for an offset into the (decompressed) file."""
    with open(path, "rb") as raw:
        file: BinaryIO = gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw  # type: ignore[assignment]
        line, left = 1, offset
        while left > 0 and (chunk := file.read(min(left, CHUNK_BYTES))):
            line += chunk.count(b"\n")
            left -= len(chunk)
    return f"{path}:{line}, byte {offset}"


def _binary(where: str) -> InputError:
    fix = "leave the file out; if it is UTF-16, convert it to UTF-8"
    return InputError("binary data (a NUL byte), where UTF-8 text is needed", where=where, fix=fix)


def _read_json_lines(path: Path) -> Iterator[Piece]:
    line = document = 0
    with _opened(path) as file:
        while True:
            offset, line = file.tell(), line + 1
            raw = file.readline(LONGEST_JSON_LINE + 1)
            if not raw:
                return
            if raw.isspace():
                continue
            source = f"{path}:{line}"
            if len(raw) > LONGEST_JSON_LINE:
                message = f"a line of more than {LONGEST_JSON_LINE >> 20} MiB"
                fix = "write one JSON object per line, and a huge text as a .txt file"
                raise InputError(message, where=source, fix=fix)
            if b"\0" in raw:
                raise _binary(f"{source}, byte {offset + raw.index(0)}")
            text = json_string(decoded(raw, source, first_byte=offset), "text", source)
            del raw  # one line may be the whole file
            for part in cut([_checked(text, source)]):
                yield Piece(part, document, source)
            document += 1


def _read_parquet(path: Path) -> Iterator[Piece]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    with translate_parquet_errors(str(path)):
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=CHUNK_BYTES)
        schema = file.schema_arrow
        if "text" not in schema.names:
            columns = ", ".join(map(repr, schema.names[:8])) or "none"
            message = f'no column "text" (columns: {columns})'
            raise InputError(message, where=str(path), fix="rename the text column to 'text'")
        kind = schema.field("text").type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise InputError(f'column "text" holds {kind}, not strings', where=str(path), fix="cast it to string")
        for batch in file.iter_batches(batch_size=64, columns=["text"], use_threads=False):
            for value in batch.column(0):
                row += 1
                where = f"{path}, row {row}"
                try:
                    text = value.as_py()
                except UnicodeDecodeError as error:
                    raise invalid_utf8(where, error) from None
                if text is None:
                    raise InputError('"text" is null, not a string', where=where, fix="drop the row")
                for part in cut([_checked(text, where)]):
                    yield Piece(part, row - 1, where)


def _checked(text: str, where: str) -> str:
    if character := unusable_character(text):
        raise InputError(f'"text" holds {character}', where=where, fix="correct or drop it")
    return text


# --- finding files: paths, directories and globs become a sorted list without duplicates ---


@dataclass(frozen=True)
class FoundFile:
    """A text file; `named` if the user named it, rather than a directory or glob that contains it."""

    path: Path
    named: bool


def find_files(arguments: Sequence[str]) -> tuple[list[FoundFile], list[str]]:
    """Return the text files that paths, directories and globs name, sorted by real path, and notes on skipped files.

    Directories are searched recursively, following links and skipping hidden names. A file that is reached twice, even
    through a link, counts once.
    """
    found: dict[str, FoundFile] = {}
    skipped: Counter[str] = Counter()
    for argument in arguments:
        for file in sorted(_expand(argument, skipped), key=lambda file: str(file.path)):
            identity = os.path.realpath(file.path)
            if identity not in found or (file.named and not found[identity].named):
                found[identity] = file
    notes = [f"skipped {count} {suffix} file(s): gptkit reads {KINDS}" for suffix, count in skipped.items()]
    return [file for _, file in sorted(found.items())], notes


def absolute(argument: str) -> str:
    """Return a path or glob as an absolute one, with ~ expanded."""
    return os.path.abspath(os.path.expanduser(argument))


def _expand(argument: str, skipped: Counter[str]) -> list[FoundFile]:
    where = absolute(argument)
    if "\0" in argument or not argument.strip():
        raise InputError(f"not a path: {argument!r}", where="DATA", fix="pass a file, a directory or a glob")
    if os.path.lexists(where):
        if not os.path.isdir(where):
            return [FoundFile(Path(where), named=True)]
        matches = [where]
    elif glob.has_magic(where):
        matches = sorted(sorted(glob.glob(where, recursive=True)), key=os.path.isdir)
        if not matches:
            raise InputError("no file matches this glob", where=where, fix="check the pattern")
    else:
        raise InputError("file not found", where=where, fix=f"check the path; for a hub data set write hf:{argument}")
    files = []
    for match in matches:
        for path in map(Path, _walk(match) if os.path.isdir(match) else [match]):
            if reader_of(path):
                files.append(FoundFile(path, named=False))
            else:
                skipped[path.suffix or "suffixless"] += 1
    if not files:
        raise InputError("no text file found", where=where, fix=f"pass files that gptkit reads: {KINDS}")
    return files


def _walk(directory: str) -> Iterator[str]:
    """Yield the visible files below a directory, entering each directory once even if links lead back to it."""

    def refuse(error: OSError) -> None:
        fix = "check its permissions"
        raise InputError(f"directory cannot be read: {error.strerror}", where=error.filename, fix=fix)

    entered = set()
    for folder, subfolders, names in os.walk(directory, followlinks=True, onerror=refuse):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            subfolders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (os.path.join(folder, name) for name in sorted(names) if not name.startswith("."))
