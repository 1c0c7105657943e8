"""Corpora of running text as passages: any text, and the test files of the language-modelling literature.

Examples are passages, see passages.py, named "<document>:<passage>"; joined they are the file.
"""

from __future__ import annotations

import io
import itertools
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gptkit.errors import InputError
from gptkit.system.reading import invalid_utf8, require_regular, translate_read_errors
from gptkit.tasks.forms import Form, find_form
from gptkit.tasks.reading import Loaded, loaded
from gptkit.text.corpora import open_corpus, open_text
from gptkit.text.examples import Example
from gptkit.text.pieces import passages
from gptkit.text.readers import read_plain_text
from gptkit.text.scan import is_blank

HELD_OUT = "0.1"  # what `gptkit pretrain` holds out unless told otherwise
HUTTER_BYTES = 100_000_000
HUTTER_TEST_BYTES = 5_000_000

_ZIP_MAGIC = b"PK\x03\x04"
# A line between single = signs is the title of an article; headings within one have more of them.
_TITLE = re.compile(r"^[^\S\n]*= (?!=)[^\n]*(?<!=) =[^\S\n]*$", re.MULTILINE)


class Document(NamedTuple):
    text: str
    where: str


@dataclass(frozen=True)
class TextCorpus:
    """A test file: the names that its authors give it, where it comes from, and how it falls into documents.

    `within_lines`: passages may end within a line; they do not where a line must be seen whole to be de-tokenised.
    """

    name: str
    forms: Sequence[Form]
    source: str
    documents: Callable[[Path], Iterable[Document]]
    within_lines: bool = False

    def load(self, data: str | None) -> Loaded:
        """Return the passages; UsageError without data, InputError with file and line for what cannot be read."""
        [path] = find_form(self.name, data, self.forms, source=self.source)
        return _loaded(self.documents(path), (), within_lines=self.within_lines)


def any_text(data: str | None) -> Loaded:
    """Return the text that DATA names as it does for `gptkit pretrain`, or what that holds out without arguments."""
    if data is None:
        corpus = open_corpus((), HELD_OUT)
        part = corpus.validation
        notes: tuple[str, ...] = (f"validation text of the {corpus.description}",)
    else:
        part, notes = open_text(data)
    by_document = itertools.groupby(part.pieces(), key=lambda piece: piece.document)
    members = (list(pieces) for _, pieces in by_document)
    documents = (Document("".join(piece.text for piece in pieces), pieces[0].source) for pieces in members)
    return _loaded(documents, notes, within_lines=True)


def articles(path: Path) -> Iterator[Document]:
    """Yield WikiText's articles, cut before the line end that precedes a title."""
    text = _whole_text(path)
    titles = [match.start() for match in _TITLE.finditer(text) if not is_blank(text[: match.start()])]
    for begin, end in itertools.pairwise([0, *(title - 1 for title in titles), len(text)]):
        yield Document(text[begin:end], f"{path}:{1 + text.count(chr(10), 0, begin + 1)}")


def one_document(path: Path) -> Iterator[Document]:
    yield Document(_whole_text(path), f"{path}:1")


def sentences(path: Path) -> Iterator[Document]:
    """Yield a document a line, cut before the line end that precedes it."""
    lines = _whole_text(path).rstrip("\n").split("\n")
    for number, line in enumerate(lines, 1):
        yield Document("\n" * (number > 1) + line + "\n" * (number == len(lines)), f"{path}:{number}")


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


def _whole_text(path: Path) -> str:
    text = "".join(piece.text for piece in read_plain_text(path))
    if is_blank(text):
        raise InputError("no text in this file", where=f"{path}:1", fix="fetch or unpack it again")
    return text


def _last_bytes(path: Path) -> bytes:
    with translate_read_errors(path):
        require_regular(path)
        with path.open("rb") as file:
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


def _loaded(documents: Iterable[Document], notes: Sequence[str], *, within_lines: bool) -> Loaded:
    examples = [
        Example((text,), None, document.where, f"{number}:{place}")
        for number, document in enumerate(documents)
        for place, text in enumerate(passages(document.text, within_lines=within_lines))
    ]
    return loaded(examples, notes)
