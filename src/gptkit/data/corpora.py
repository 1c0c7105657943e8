"""The text to train on and the text to validate on, from wherever it comes, as streams of pieces."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, takewhile
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gptkit.data import embedded
from gptkit.data.cache import megabytes
from gptkit.data.files import FoundFile, absolute, find_files
from gptkit.data.hub import materialise
from gptkit.data.pieces import Piece, cut
from gptkit.data.readers import read_pieces
from gptkit.data.split import Scan, cut_point, fraction_of, head, held_out, is_blank, name_hash, scan, tail
from gptkit.errors import InputError, UsageError

__all__ = ["Corpus", "Piece", "TextPart", "open_corpus", "open_text"]

Kind = Literal["embedded", "files", "hub"]
Pieces = Callable[[], Iterator[Piece]]


@dataclass(frozen=True)
class TextPart:
    """One side of a corpus; equal keys mean equal documents."""

    pieces: Pieces
    key: str
    documents: int
    utf8_bytes: int


_Sides = tuple[TextPart, TextPart]  # train, validation


@dataclass(frozen=True)
class Corpus:
    """Text in two parts that share no document. Its pieces can be read again and again; memory stays flat."""

    kind: Kind
    description: str  # one line
    licence: str  # one line for the model card
    sources: tuple[str, ...]  # DATA as config.yaml repeats it: absolute paths and globs, hf: names; () = embedded
    validation_source: str  # --validation likewise: a fraction, or an absolute path
    data_sha256: str  # over all text, with the boundaries of documents
    train: TextPart
    validation: TextPart
    notes: tuple[str, ...]  # lines for the log

    def train_pieces(self) -> Iterator[Piece]:
        return self.train.pieces()

    def validation_pieces(self) -> Iterator[Piece]:
        return self.validation.pieces()

    @property
    def train_bytes(self) -> int:
        """UTF-8 bytes of the training text."""
        return self.train.utf8_bytes

    @property
    def validation_bytes(self) -> int:
        """UTF-8 bytes of the validation text."""
        return self.validation.utf8_bytes


@dataclass(frozen=True)
class _Source:
    """Where documents come from, read through once."""

    kind: Kind
    description: str
    licence: str
    arguments: tuple[str, ...]
    pieces: Pieces
    scan: Scan
    side_hashes: NDArray[np.uint64]  # what decides each document's side: the hash of its text, or of its group's name
    notes: tuple[str, ...]


def open_corpus(data: Sequence[str], validation: str, *, hub_characters: int | None = None) -> Corpus:
    """Find, read through and split the text of DATA; none = the embedded corpus.

    `hub_characters` bounds how much is read of an `hf:` data set. What cannot be used is an InputError that names the
    place, a fraction out of (0, 1) a UsageError.
    """
    fraction = fraction_of(validation)
    if fraction is not None:
        source = _files(data, hub_characters) if data else _embedded()
        parts, notes = _divided(source, fraction)
        return _corpus(source, validation, source.scan.sha256, parts, notes)
    where = absolute(validation)
    if not os.path.lexists(where):
        message = f"{validation!r} is neither a fraction between 0 and 1 nor a file"
        raise UsageError(message, where="--validation", fix="give 0.1, or the path of a text file")
    held = _files([validation], None)
    source = _files(data, hub_characters, without=where) if data else _embedded()
    both = hashlib.sha256(f"{source.scan.sha256} {held.scan.sha256}".encode()).hexdigest()
    parts = (_whole(source), _whole(held))
    return _corpus(source, where, both, parts, [*held.notes, _shares(parts)])


def open_text(data: str) -> tuple[TextPart, tuple[str, ...]]:
    """Find and read through the text of one argument, undivided; and notes on what was passed over."""
    source = _files([data], None)
    return _whole(source), source.notes


def _corpus(source: _Source, validation: str, sha256: str, parts: _Sides, notes: list[str]) -> Corpus:
    return Corpus(
        kind=source.kind,
        description=source.description,
        licence=source.licence,
        sources=source.arguments,
        validation_source=validation,
        data_sha256=sha256,
        train=parts[0],
        validation=parts[1],
        notes=(*source.notes, *notes),
    )


def _embedded() -> _Source:
    texts = embedded.embedded_texts()

    def pieces() -> Iterator[Piece]:
        for number, document in enumerate(texts):
            for text in cut([document.text]):
                yield Piece(text, number, document.group)

    return _Source(
        kind="embedded",
        description=f"documentation of Python {platform.python_version()}'s standard library",
        licence=embedded.LICENCE,
        arguments=(),
        pieces=pieces,
        scan=scan(pieces()),
        side_hashes=np.array([name_hash(document.group) for document in texts], np.uint64),
        notes=(),
    )


def _files(data: Sequence[str], hub_characters: int | None, *, without: str | None = None) -> _Source:
    """Read local files, then hub data sets; the files of `without` validate and do not train."""
    names = sorted({argument for argument in data if argument.startswith("hf:")})
    paths = sorted({argument for argument in data if not argument.startswith("hf:")})
    files, notes = find_files(paths)
    if without is not None:
        held = {os.path.realpath(file.path) for file in find_files([without])[0]}
        files = [file for file in files if os.path.realpath(file.path) not in held]
    licences = ["the files' own, which gptkit does not know"] if files else []
    for name in names:
        text = materialise(name, characters=hub_characters)
        files.append(FoundFile(text.path, named=True))
        licences.append(f"{text.licence or 'see the card of'} {name}")
        notes += [f"{name}: left out {text.left_out:,} rows without usable text"] if text.left_out else []
    if not files:
        fix = "name other text, or a fraction"
        raise InputError("nothing to train on but the validation text", where=str(without), fix=fix)
    pieces = partial(_file_pieces, files)
    found = scan(pieces())
    where = ", ".join([*paths, *names][:3])
    if found.blank.all():
        raise InputError("no text, only empty files", where=where, fix="name files with text")
    if found.blank.any():
        notes.append(f"left out {int(found.blank.sum()):,} blank document(s)")
    return _Source(
        kind="files" if paths else "hub",
        description=f"{len(files):,} file(s): {where}" if paths else where,
        licence="; ".join(licences),
        arguments=(*map(absolute, paths), *names),
        pieces=pieces,
        scan=found,
        side_hashes=found.hashes,
        notes=tuple(notes),
    )


def _file_pieces(files: Iterable[FoundFile]) -> Iterator[Piece]:
    """Number the documents of all files through; a named file without text is an InputError."""
    first = 0
    for file in files:
        last, has_text = -1, not file.named
        for text, last, place in read_pieces(file.path):
            has_text = has_text or not is_blank(text)
            yield Piece(text, first + last, place)
        if not has_text:
            raise InputError("no text in this file", where=str(file.path), fix="leave it out, or fill it")
        first += last + 1


def _divided(source: _Source, fraction: float) -> tuple[_Sides, list[str]]:
    kept = ~source.scan.blank
    hashes = source.scan.hashes[kept]
    if (hashes == hashes[0]).all():
        return _cut_once(source, fraction)
    validates = np.zeros_like(kept)
    validates[kept] = held_out(source.side_hashes[kept], fraction)
    parts = (_part(source, kept & ~validates), _part(source, validates))
    return parts, [_shares(parts)]


def _cut_once(source: _Source, fraction: float) -> tuple[_Sides, list[str]]:
    """Cut an only document in two; of its copies, each trains with its head, and one validates with its tail."""
    only = _whole(source)
    characters = source.scan.first_characters
    cut_at = cut_point(characters, fraction)
    if not 0 < cut_at < characters:
        message = f"a document of {characters} character(s) cannot be cut into training and validation text"
        raise InputError(message, where=source.arguments[0], fix="add text")

    def train() -> Iterator[Piece]:
        return head(only.pieces(), cut_at)

    def validation() -> Iterator[Piece]:
        pieces = only.pieces()
        first = next(pieces)
        members = takewhile(lambda piece: piece.document == first.document, pieces)
        return tail(chain([first], members), cut_at)

    head_bytes = sum(len(piece.text.encode()) for piece in train())
    tail_bytes = (only.utf8_bytes - head_bytes) // only.documents
    parts = (
        TextPart(train, f"{only.key}[:{cut_at}]", only.documents, head_bytes),
        TextPart(validation, f"{only.key}[{cut_at}:]", 1, tail_bytes),
    )
    what = "one document" if only.documents == 1 else f"{only.documents:,} copies of one document"
    note = f"{what}: cut once, the first {cut_at:,} characters train, the last {characters - cut_at:,} validate"
    return parts, [note]


def _whole(source: _Source) -> TextPart:
    return _part(source, ~source.scan.blank)


def _part(source: _Source, members: NDArray[np.bool_]) -> TextPart:
    """Return the documents where `members` (documents,) is true."""
    chosen = members.tobytes()

    def pieces() -> Iterator[Piece]:
        for piece in source.pieces():
            if piece.document >= len(chosen):
                raise InputError("the text changed while it was read", where=piece.source, fix="run the command again")
            if chosen[piece.document]:
                yield piece

    key = hashlib.sha256(source.scan.sha256.encode() + np.packbits(members).tobytes()).hexdigest()
    return TextPart(pieces, key, int(members.sum()), int(source.scan.utf8_bytes[members].sum()))


def _shares(parts: _Sides) -> str:
    train, validation = parts
    share = validation.utf8_bytes / (train.utf8_bytes + validation.utf8_bytes)
    return (
        f"training text: {megabytes(train.utf8_bytes)} in {train.documents:,} document(s); "
        f"validation: {megabytes(validation.utf8_bytes)} in {validation.documents:,} ({share:.1%} of the text)"
    )
