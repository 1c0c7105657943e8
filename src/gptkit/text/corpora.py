"""Training and validation text from files, the hub or the embedded corpus, as streams of pieces."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import InputError, UsageError
from gptkit.system.cache import megabytes
from gptkit.text import embedded
from gptkit.text.find_files import FoundFile, absolute, find_files
from gptkit.text.hub_rows import download_text
from gptkit.text.pieces import Piece, cut, is_blank
from gptkit.text.readers import read_pieces
from gptkit.text.split import (
    TRAIN,
    VALIDATION,
    Scan,
    Sides,
    Split,
    choose_split,
    divided,
    fraction_of,
    hashes_below,
    max_fraction,
    name_hash,
    scan,
)

FORMAT = 2  # of a part's key
Pieces = Callable[[], Iterator[Piece]]
Divided = Callable[[], Iterator[tuple[int, Piece]]]


@dataclass(frozen=True)
class TextPart:
    """One side of a corpus; equal keys mean equal documents."""

    pieces: Pieces
    key: str
    documents: int
    about_bytes: int  # of UTF-8: exact, but where a document is cut
    is_cut: bool = False

    def count_bytes(self) -> int:
        """Return the bytes of UTF-8 exactly, for which a text that is cut is read."""
        return sum(utf8_length(piece.text) for piece in self.pieces()) if self.is_cut else self.about_bytes


_Parts = tuple[TextPart, TextPart]  # train, validation


@dataclass(frozen=True)
class Corpus:
    """Text in two parts that share no document. Its pieces can be read repeatedly; no text is kept in memory.

    `both` reads both parts at once, as (TRAIN or VALIDATION, piece); None where they come from different files.
    """

    description: str  # one line
    licence: str  # one line for the model card
    data_sha256: str  # over all text, with the boundaries of documents
    train: TextPart
    validation: TextPart
    both: Divided | None
    notes: tuple[str, ...]  # lines for the log

    @property
    def split_sha256(self) -> str:
        """A hash of which text is on which side."""
        return hashlib.sha256(f"{self.train.key} {self.validation.key}".encode()).hexdigest()


@dataclass(frozen=True)
class _Source:
    """Where documents come from, scanned once."""

    description: str
    licence: str
    read: Pieces
    scan: Scan
    notes: tuple[str, ...]
    name_hashes: NDArray[np.uint64] | None = None  # if given, the split is by these, not by the text

    def pieces(self) -> Iterator[Piece]:
        """Read again; InputError at the end if there is more or less than was scanned."""
        found, utf8_bytes = self.scan.utf8_bytes, 0
        for piece in self.read():
            if piece.document >= len(found):
                raise _changed(piece.source)
            utf8_bytes += utf8_length(piece.text)
            yield piece
        if utf8_bytes != found.sum():
            raise _changed("DATA")


def _changed(where: str) -> InputError:
    return InputError("the text changed while it was read", where=where, fix="run the command again")


def utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def open_corpus(data: Sequence[str], validation: str, *, hub_characters: int | None = None) -> Corpus:
    """Find, scan and split the text of DATA; none = the embedded corpus.

    `hub_characters` bounds how much is read of an `hf:` data set. What cannot be used is an InputError that names the
    place, a fraction out of (0, 1) a UsageError.
    """
    fraction = fraction_of(validation)
    if fraction is not None:
        source = _files(data, hub_characters) if data else _embedded()
        parts, both, notes = _held_out(source, fraction)
        sha256 = source.scan.sha256
    else:
        where = absolute(validation)
        if not os.path.lexists(where):
            message = f"{validation!r} is neither a fraction between 0 and 1 nor a file"
            raise UsageError(message, where="--validation", fix="give 0.1, or the path of a text file")
        held = _files([validation], None)
        source = _files(data, hub_characters) if data else _embedded()
        (parts, notes), both = _beside(source, held, where), None
        sha256 = hashlib.sha256(f"{source.scan.sha256} {held.scan.sha256}".encode()).hexdigest()
    notes = [*source.notes, *notes, _sizes_note(*parts)]
    return Corpus(source.description, source.licence, sha256, *parts, both, tuple(notes))


def open_text(data: str) -> tuple[TextPart, tuple[str, ...]]:
    """Find and scan the text of one argument, undivided; also return notes on what was skipped."""
    source = _files([data], None)
    return _whole(source), source.notes


def _embedded() -> _Source:
    texts = embedded.embedded_texts()

    def pieces() -> Iterator[Piece]:
        for number, (group, document) in enumerate(texts):
            for text in cut([document]):
                yield Piece(text, number, group)

    return _Source(
        description=f"documentation of Python {platform.python_version()}'s standard library",
        licence=embedded.LICENCE,
        read=pieces,
        scan=scan(pieces()),
        notes=(),
        name_hashes=np.array([name_hash(group) for group, _ in texts], np.uint64),
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
        description=f"{len(files):,} file(s): {where}" if paths else where,
        licence="; ".join(licences),
        read=pieces,
        scan=found,
        notes=tuple(notes),
    )


def _file_pieces(files: Iterable[FoundFile]) -> Iterator[Piece]:
    """Number the documents of all files consecutively; a named file without text is an InputError."""
    first = 0
    for file in files:
        last, has_text = -1, not file.named
        for text, last, place in read_pieces(file.path):
            has_text = has_text or not is_blank(text)
            yield Piece(text, first + last, place)
        if not has_text:
            raise InputError("no text in this file", where=str(file.path), fix="leave it out, or fill it")
        first += last + 1


def _held_out(source: _Source, fraction: float) -> tuple[_Parts, Divided, list[str]]:
    """Hold out a fraction; also return notes on what is unusual about the corpus or its split."""
    found, kept = source.scan, ~source.scan.blank
    if source.name_hashes is not None:
        split = Split(hashes_below(source.name_hashes, fraction), np.zeros_like(kept))
        return *_parts(source, split), []
    split, notes = choose_split(found, fraction), _copies_note(found)
    parts, both = _parts(source, split)
    train, validation = parts
    if split.cut.any():
        notes.append(_cut_note(found, split))
    elif not validation.documents:
        message = "a document of one character cannot be cut into training and validation text"
        raise InputError(message, where=found.longest.source, fix="add text")
    elif validation.about_bytes < fraction * (train.about_bytes + validation.about_bytes):
        notes.append(f"any other document would take the validation text over {max_fraction(fraction):.1%} of the text")
    return parts, both, notes


def _parts(source: _Source, split: Split) -> tuple[_Parts, Divided]:
    """Return both sides, and what reads them at once; of a document that is cut the first copy's tail validates."""
    found, trains = source.scan, ~source.scan.blank & ~split.validation
    validates = split.validation.copy()
    validates[np.flatnonzero(split.cut)[:1]] = True
    sides = Sides(trains.tobytes(), validates.tobytes(), split.cut.tobytes(), split.cut_at)

    def both() -> Iterator[tuple[int, Piece]]:
        return divided(source.pieces(), sides)

    train = _part(source, trains, lambda: (piece for side, piece in both() if side == TRAIN))
    validation = _part(source, validates, lambda: (piece for side, piece in both() if side == VALIDATION))
    if split.cut.any():
        copies, before = found.utf8_bytes[split.cut], found.longest.share_before(split.cut_at)
        tails, head = round((1 - before) * int(copies.sum())), round(before * int(copies[0]))
        train = replace(train, key=f"{train.key}[:{split.cut_at}]", about_bytes=train.about_bytes - tails, is_cut=True)
        validation = replace(
            validation,
            key=f"{validation.key}[{split.cut_at}:]",
            about_bytes=validation.about_bytes - head,
            is_cut=True,
        )
    return (train, validation), both


def _beside(source: _Source, held: _Source, where: str) -> tuple[_Parts, list[str]]:
    """Validate on `held`, and train on the documents that are not in it, whatever file they are in."""
    kept = ~source.scan.blank
    trains = kept & ~np.isin(source.scan.hashes, held.scan.hashes)
    if not trains.any():
        fix = "name other text, or a fraction"
        raise InputError("nothing to train on: every document is also in the validation text", where=where, fix=fix)
    parts = (_part(source, trains), _whole(held))
    removed = int(kept.sum() - trains.sum())
    note = f"left out {removed:,} training document(s) that are also in the validation text"
    return parts, [*held.notes, *([note] if removed else [])]


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


def _part(source: _Source, members: NDArray[np.bool_], pieces: Pieces | None = None) -> TextPart:
    """Return the documents where `members` (documents,) is true, or of them what `pieces` reads."""
    chosen = members.tobytes()
    # Blank documents do not count in the sha256, so they must not shift the numbers of the others.
    among_texts = np.packbits(members[~source.scan.blank]).tobytes()
    return TextPart(
        pieces or (lambda: (piece for piece in source.pieces() if chosen[piece.document])),
        hashlib.sha256(f"{FORMAT} {source.scan.sha256} ".encode() + among_texts).hexdigest(),
        int(members.sum()),
        int(source.scan.utf8_bytes[members].sum()),
    )


def _sizes_note(train: TextPart, validation: TextPart) -> str:
    share = validation.about_bytes / (train.about_bytes + validation.about_bytes)
    return (
        f"training text: {megabytes(train.about_bytes)} in {train.documents:,} document(s); "
        f"validation: {megabytes(validation.about_bytes)} in {validation.documents:,} ({share:.1%} of the text)"
    )
