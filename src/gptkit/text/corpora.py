"""The text to train on and the text to validate on, from wherever it comes, as streams of pieces."""

from __future__ import annotations

import hashlib
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import InputError, UsageError
from gptkit.system.cache import megabytes
from gptkit.text import embedded
from gptkit.text.find_files import FoundFile, absolute, find_files
from gptkit.text.hub_rows import download_text
from gptkit.text.pieces import Piece, cut
from gptkit.text.readers import read_pieces
from gptkit.text.scan import Scan, is_blank, scan
from gptkit.text.split import Split, choose_split, fraction_of, hashes_below, head, max_fraction, name_hash, tail

__all__ = ["Corpus", "Piece", "TextPart", "open_corpus", "open_text"]

FORMAT = 2  # of a part's key
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
    """Text in two parts that share no document. Its pieces can be read again and again; no text is kept in memory."""

    kind: Kind
    description: str  # one line
    licence: str  # one line for the model card
    data_sha256: str  # over all text, with the boundaries of documents
    train: TextPart
    validation: TextPart
    notes: tuple[str, ...]  # lines for the log

    def train_pieces(self) -> Iterator[Piece]:
        return self.train.pieces()

    def validation_pieces(self) -> Iterator[Piece]:
        return self.validation.pieces()

    @property
    def split_sha256(self) -> str:
        """A hash of which text is on which side."""
        return hashlib.sha256(f"{self.train.key} {self.validation.key}".encode()).hexdigest()

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
    pieces: Pieces
    scan: Scan
    notes: tuple[str, ...]
    name_hashes: NDArray[np.uint64] | None = None  # if given, the split is by these, not by the text


def open_corpus(data: Sequence[str], validation: str, *, hub_characters: int | None = None) -> Corpus:
    """Find, read through and split the text of DATA; none = the embedded corpus.

    `hub_characters` bounds how much is read of an `hf:` data set. What cannot be used is an InputError that names the
    place, a fraction out of (0, 1) a UsageError.
    """
    fraction = fraction_of(validation)
    if fraction is not None:
        source = _files(data, hub_characters) if data else _embedded()
        return _corpus(source, source.scan.sha256, *_divided(source, fraction))
    where = absolute(validation)
    if not os.path.lexists(where):
        message = f"{validation!r} is neither a fraction between 0 and 1 nor a file"
        raise UsageError(message, where="--validation", fix="give 0.1, or the path of a text file")
    held = _files([validation], None)
    source = _files(data, hub_characters) if data else _embedded()
    both = hashlib.sha256(f"{source.scan.sha256} {held.scan.sha256}".encode()).hexdigest()
    return _corpus(source, both, *_beside(source, held, where))


def open_text(data: str) -> tuple[TextPart, tuple[str, ...]]:
    """Find and read through the text of one argument, undivided; and notes on what was passed over."""
    source = _files([data], None)
    return _whole(source), source.notes


def _corpus(source: _Source, sha256: str, parts: _Sides, notes: Sequence[str]) -> Corpus:
    return Corpus(
        kind=source.kind,
        description=source.description,
        licence=source.licence,
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
        pieces=pieces,
        scan=scan(pieces()),
        notes=(),
        name_hashes=np.array([name_hash(document.group) for document in texts], np.uint64),
    )


def _files(data: Sequence[str], hub_characters: int | None) -> _Source:
    """Read local files, then hub data sets."""
    names = sorted({argument for argument in data if argument.startswith("hf:")})
    paths = sorted({argument for argument in data if not argument.startswith("hf:")})
    files, notes = find_files(paths)
    licences = ["the files' own, which gptkit does not know"] if files else []
    for name in names:
        text = download_text(name, characters=hub_characters)
        files.append(FoundFile(text.path, named=True))
        licences.append(f"{text.licence or 'see the card of'} {name}")
        notes += [f"{name}: left out {text.left_out:,} rows without usable text"] if text.left_out else []
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
        pieces=pieces,
        scan=found,
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
    """Hold out a fraction; the notes say what is unusual about the corpus or its split."""
    found, kept = source.scan, ~source.scan.blank
    if source.name_hashes is not None:
        validation = hashes_below(source.name_hashes, fraction)
        parts = (_part(source, ~validation), _part(source, validation))
        return parts, [_shares(parts)]
    split, notes = choose_split(found, fraction), _copies_note(found)
    if split.cut.any():
        parts = _cut_once(source, split)
        return parts, [*notes, _cut_note(found, split), _shares(parts)]
    parts = (_part(source, kept & ~split.validation), _part(source, split.validation))
    if not parts[1].documents:
        message = "a document of one character cannot be cut into training and validation text"
        raise InputError(message, where=found.longest.source, fix="add text")
    if parts[1].utf8_bytes < fraction * (parts[0].utf8_bytes + parts[1].utf8_bytes):
        notes.append(f"any other document would take the validation text over {max_fraction(fraction):.1%} of the text")
    return parts, [*notes, _shares(parts)]


def _beside(source: _Source, held: _Source, where: str) -> tuple[_Sides, list[str]]:
    """Validate on `held`, and train on the documents that are not in it, whatever file they are in."""
    kept = ~source.scan.blank
    trains = kept & ~np.isin(source.scan.hashes, held.scan.hashes)
    if not trains.any():
        fix = "name other text, or a fraction"
        raise InputError("nothing to train on: every document is also in the validation text", where=where, fix=fix)
    parts = (_part(source, trains), _whole(held))
    removed = int(kept.sum() - trains.sum())
    note = f"left out {removed:,} training document(s) that are also in the validation text"
    return parts, [*held.notes, *([note] if removed else []), _shares(parts)]


def _cut_once(source: _Source, split: Split) -> _Sides:
    """Cut one document: the heads of all its copies are training text, the tail of the first is validation text."""
    first, last = np.flatnonzero(split.cut)[[0, -1]]
    validates = split.validation.copy()
    validates[first] = True
    train = _part(source, ~source.scan.blank & ~split.validation)
    validation = _part(source, validates)
    cut, at = split.cut.tobytes(), split.cut_at
    heads: Counter[int] = Counter()
    for piece in head(takewhile(lambda piece: piece.document <= last, train.pieces()), cut, at):
        if cut[piece.document]:
            heads[piece.document] += len(piece.text.encode())
    head_bytes = train.utf8_bytes - int(source.scan.utf8_bytes[split.cut].sum()) + heads.total()
    tail_bytes = validation.utf8_bytes - heads[int(first)]
    return (
        TextPart(lambda: head(train.pieces(), cut, at), f"{train.key}[:{at}]", train.documents, head_bytes),
        TextPart(
            lambda: tail(validation.pieces(), cut, at), f"{validation.key}[{at}:]", validation.documents, tail_bytes
        ),
    )


def _copies_note(found: Scan) -> list[str]:
    hashes = found.hashes[~found.blank]
    copies = len(hashes) - len(np.unique(hashes))
    what = "document(s) are copies (white space at the ends aside); copies are never split between the two sides"
    return [f"{copies:,} of {len(hashes):,} {what}"] if 0 < copies < len(hashes) - 1 else []


def _cut_note(found: Scan, split: Split) -> str:
    how = f"cut once, its first {split.cut_at:,} characters train, the rest validates"
    copies, kept = int(split.cut.sum()), ~found.blank
    if copies == kept.sum():
        return f"{'one document' if copies == 1 else f'{copies:,} copies of one document'}: {how}"
    share = found.utf8_bytes[split.validation].sum() / found.utf8_bytes[kept].sum()
    least = f"only {share:.1%}" if share else "nothing"
    return f"whole documents would hold out {least}, so the longest one ({found.longest.source}) is {how}"


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

    # Blank documents do not count in the sha256, so they must not shift the numbers of the others.
    among_texts = np.packbits(members[~source.scan.blank]).tobytes()
    key = hashlib.sha256(f"{FORMAT} {source.scan.sha256} ".encode() + among_texts).hexdigest()
    return TextPart(pieces, key, int(members.sum()), int(source.scan.utf8_bytes[members].sum()))


def _shares(parts: _Sides) -> str:
    train, validation = parts
    share = validation.utf8_bytes / (train.utf8_bytes + validation.utf8_bytes)
    return (
        f"training text: {megabytes(train.utf8_bytes)} in {train.documents:,} document(s); "
        f"validation: {megabytes(validation.utf8_bytes)} in {validation.documents:,} ({share:.1%} of the text)"
    )
