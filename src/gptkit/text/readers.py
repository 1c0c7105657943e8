"""Find text files, and stream documents from .txt, .jsonl (both also .gz) and .parquet in pieces, in constant memory.

    kind       a document is         its text
    .txt       the file              byte order marks are dropped, CR LF and CR become LF (as in open())
    .jsonl     a line                the string "text", unchanged; blank lines are skipped
    .parquet   a row                 the string column "text", unchanged

Text files are UTF-8 unless their byte order mark, or else --encoding, says otherwise. Nothing is guessed: whatever
cannot be read is an InputError with file, line and byte.
"""

from __future__ import annotations

import glob
import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from gptkit.errors import InputError
from gptkit.system.encodings import MARK
from gptkit.system.reading import (
    invalid_utf8,
    json_string,
    not_text,
    open_text,
    require_regular,
    translate_parquet_errors,
    translate_read_errors,
    unusable_character,
)
from gptkit.text.pieces import Piece, cut

CHUNK_CHARACTERS = 1 << 19
CHUNK_BYTES = 1 << 20
LONGEST_JSON_LINE = 1 << 28
Reader = Callable[[Path], Iterator[Piece]]
KINDS = ".txt, .txt.gz, .jsonl, .jsonl.gz, .parquet"


def read_pieces(path: Path) -> Iterator[Piece]:
    """Yield the pieces of all documents in a file, numbered from 0; an empty document is one empty piece."""
    yield from _required_reader(path)(path)


def check_files(arguments: Sequence[str]) -> None:
    """Raise the errors of paths, folders and globs that can be found without reading a file."""
    for file in find_files(arguments)[0]:
        _required_reader(file.path)


def _required_reader(path: Path) -> Reader:
    reader = reader_of(path)
    if reader is None:
        cure = "if it is plain text, rename it to end in .txt"
        if path.suffix.lower() in (".json", ".csv", ".tsv"):
            cure = 'write its texts as a .jsonl, one {"text": "..."} a line'
        raise InputError(
            f"gptkit does not read this kind of file: {path.name}",
            where=str(path),
            fix=f"use {KINDS}; {cure}",
        )
    return reader


def reader_of(path: Path) -> Reader | None:
    """Return the reader for a file of this suffix, None if there is none."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".txt"):
        return read_plain_text
    if name.endswith(".jsonl"):
        return _read_json_lines
    return _read_parquet if path.name.lower().endswith(".parquet") else None


def read_plain_text(path: Path) -> Iterator[Piece]:
    """Yield the pieces of a text file, whatever its suffix."""
    with open_text(path) as file:
        for text in cut(_chunks(path, file)):
            yield Piece(text, 0, str(path))


def _chunks(path: Path, file: TextIO) -> Iterator[str]:
    while chunk := file.read(CHUNK_CHARACTERS):
        if "\0" in chunk:
            raise not_text(path)
        yield chunk.replace(MARK, "")


def _read_json_lines(path: Path) -> Iterator[Piece]:
    document = 0
    with open_text(path) as file:
        for number in itertools.count(1):
            line = file.readline(LONGEST_JSON_LINE + 1)
            if not line:
                return
            if line.isspace():
                continue
            source = f"{path}:{number}"
            if len(line) > LONGEST_JSON_LINE:
                message = f"a line of more than {LONGEST_JSON_LINE >> 20} million characters"
                fix = "write one JSON object per line, and a huge text as a .txt file"
                raise InputError(message, where=source, fix=fix)
            if "\0" in line:
                raise not_text(path)
            text = json_string(line, "text", source)
            del line  # one line may be the whole file
            for part in cut([_checked(text, source)]):
                yield Piece(part, document, source)
            document += 1


def _read_parquet(path: Path) -> Iterator[Piece]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    with translate_read_errors(path), translate_parquet_errors(str(path)):
        require_regular(path)
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
    """Return a path or glob as an absolute one, with ~ expanded; a file may spell its accents in the other NF form."""
    forms = (argument, unicodedata.normalize("NFC", argument), unicodedata.normalize("NFD", argument))
    paths = [os.path.abspath(os.path.expanduser(form)) for form in forms]
    return next(filter(os.path.lexists, paths), paths[0])


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
        is_hub_name = not (os.path.isabs(argument) or reader_of(Path(argument)))
        fix = "check the path" + f"; for a hub data set write hf:{argument}" * is_hub_name
        raise InputError("file not found", where=where, fix=fix)
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
