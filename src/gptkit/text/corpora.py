"""Open the training and validation text: from files, the hub or the embedded corpus, as streams of pieces."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import InputError, UsageError
from gptkit.system.cache import cache_path, cached_file, megabytes
from gptkit.system.files import HashedFile
from gptkit.system.hub import load_dataset, translate_dataset_errors
from gptkit.system.reading import unusable_character
from gptkit.text import embedded
from gptkit.text.pieces import Piece, cut, is_blank
from gptkit.text.readers import FoundFile, absolute, check_files, find_files, read_pieces
from gptkit.text.split import (
    TRAIN,
    VALIDATION,
    Scan,
    Split,
    choose_split,
    divide,
    fraction_of,
    hashes_below,
    max_fraction,
    name_hash,
    scan,
)

FORMAT = 2  # of TextPart.key
HUB_FORMAT = 2
HUB_CHARACTERS_PER_TOKEN = 8  # more than any tokenizer needs for English: enough of an hf: data set is read
Pieces = Callable[[], Iterator[Piece]]
Divided = Callable[[], Iterator[tuple[int, Piece]]]


@dataclass(frozen=True)
class TextPart:
    """One side of a corpus. Parts with equal keys have equal documents."""

    pieces: Pieces
    key: str
    documents: int
    about_bytes: int  # of UTF-8, exact unless a document is cut
    is_cut: bool = False

    def count_bytes(self) -> int:
        """Return the exact number of UTF-8 bytes, reading the text if a document is cut."""
        return sum(utf8_length(piece.text) for piece in self.pieces()) if self.is_cut else self.about_bytes


@dataclass(frozen=True)
class Corpus:
    """Text in two parts that share no document. Pieces can be read repeatedly, and no text is kept in memory.

    `both` reads both parts in one pass, as (TRAIN or VALIDATION, piece); None if they come from different files.
    """

    description: str  # one line
    licence: str  # one line for the model card
    data_sha256: str  # over all text and its division into documents
    train: TextPart
    validation: TextPart
    both: Divided | None
    notes: tuple[str, ...]  # lines for the log

    @property
    def split_sha256(self) -> str:
        """The sha256 of which text is on which side."""
        return hashlib.sha256(f"{self.train.key} {self.validation.key}".encode()).hexdigest()

    def text_for(self, tokenizer: str) -> TextPart:
        """Return what a tokenizer is trained on; char on all of DATA, as unknown characters have no bits per byte."""
        train, validation, both = self.train, self.validation, self.both
        if tokenizer != "char" or both is None:
            return train
        documents, about_bytes = train.documents + validation.documents, train.about_bytes + validation.about_bytes
        return TextPart(lambda: (piece for _, piece in both()), self.split_sha256, documents, about_bytes, train.is_cut)


@dataclass(frozen=True)
class _Source:
    """A source of documents that has been scanned."""

    description: str
    licence: str
    read: Pieces
    scan: Scan
    notes: tuple[str, ...]
    name_hashes: NDArray[np.uint64] | None = None  # if given, they decide the split, not the hashes of the text

    def pieces(self) -> Iterator[Piece]:
        """Read the documents again; InputError if there is more or less text than was scanned."""
        found, utf8_bytes = self.scan.utf8_bytes, 0
        for piece in self.read():
            if piece.document >= len(found):
                raise _changed(piece.source)
            utf8_bytes += utf8_length(piece.text)
            yield piece
        if utf8_bytes != found.sum():
            raise _changed("DATA")


def _changed(where: str) -> InputError:
    return InputError("the text changed while it was read", where=where, fix="rerun the command")


def utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def hub_characters(tokens: int) -> int:
    """Return how much of an hf: data set is read to train on so many tokens."""
    return tokens * HUB_CHARACTERS_PER_TOKEN


def open_corpus(data: Sequence[str], validation: str, *, hub_characters: int | None = None) -> Corpus:
    """Find, scan and split the text of DATA, by default the embedded corpus, by --validation FILE|FRACTION.

    Read only about `hub_characters` of each `hf:` data set. Unusable text is an InputError that names the place, a
    fraction outside (0, 1) a UsageError.
    """
    fraction = fraction_of(validation)
    notes: Sequence[str]
    if fraction is not None:
        source = _files(data, hub_characters) if data else _embedded()
        train, held_out, both, notes = _split(source, fraction)
        sha256 = source.scan.sha256
    else:
        where = _absolute_validation(validation)
        held = _files([validation], None)
        source = _files(data, hub_characters) if data else _embedded()
        sha256 = hashlib.sha256(f"{source.scan.sha256} {held.scan.sha256}".encode()).hexdigest()
        kept = ~source.scan.blank
        trains = kept & ~np.isin(source.scan.hashes, held.scan.hashes)
        if not trains.any():
            message = "nothing to train on: every document is also in the validation text"
            raise InputError(message, where=where, fix="pass different files, or a fraction")
        train, held_out, both = _part(source, trains), _part(held, ~held.scan.blank), None
        notes = [*held.notes]
        if removed := int(kept.sum() - trains.sum()):
            notes.append(f"left out {removed:,} training document(s) that are also in the validation text")
    held_out_fraction = held_out.about_bytes / (train.about_bytes + held_out.about_bytes)
    sizes = (
        f"training text: {megabytes(train.about_bytes)} in {train.documents:,} document(s); "
        f"validation: {megabytes(held_out.about_bytes)} in {held_out.documents:,} ({held_out_fraction:.1%} of the text)"
    )
    notes = (*source.notes, *notes, sizes)
    return Corpus(source.description, source.licence, sha256, train, held_out, both, notes)


def check_corpus(data: Sequence[str], validation: str) -> None:
    """Raise the errors of `open_corpus` that can be found without reading a file or the network."""
    if fraction_of(validation) is None:
        check_files([_absolute_validation(validation)])
    check_files([name for name in data if not name.startswith("hf:")])


def _absolute_validation(validation: str) -> str:
    where = absolute(validation)
    if not os.path.lexists(where):
        message = f"{validation!r} is neither a fraction nor a file"
        raise UsageError(message, where="--validation", fix="pass 0.1, or the path of a text file")
    return where


def open_text(data: str) -> tuple[TextPart, tuple[str, ...]]:
    """Find and scan the text of one DATA argument, unsplit; also return notes on what was skipped."""
    source = _files([data], None)
    return _part(source, ~source.scan.blank), source.notes


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
    """Find and scan local files and hub data sets, in this order."""
    names = sorted({argument for argument in data if argument.startswith("hf:")})
    paths = sorted({argument for argument in data if not argument.startswith("hf:")})
    files, notes = find_files(paths)
    licences = ["the files' own, which gptkit does not know"] if files else []
    for name in names:
        text = download_text(name, characters=hub_characters)
        files.append(FoundFile(text.path, named=True))
        licences.append(f"{text.licence or 'see the card of'} {name}")
        notes += [f"{name}: left out {text.left_out:,} rows without usable text"] if text.left_out else []

    def pieces() -> Iterator[Piece]:
        first = 0  # the documents of all files are numbered consecutively
        for file in files:
            last, has_text = -1, not file.named
            for text, last, place in read_pieces(file.path):
                has_text = has_text or not is_blank(text)
                yield Piece(text, first + last, place)
            if not has_text:
                raise InputError("no text in this file", where=str(file.path), fix="leave it out, or add text")
            first += last + 1

    found = scan(pieces())
    where = ", ".join([*paths, *names][:3])
    if found.blank.all():
        raise InputError("all files are empty", where=where, fix="pass files with text")
    if found.blank.any():
        notes.append(f"left out {int(found.blank.sum()):,} blank document(s)")
    description = f"{len(files):,} file(s): {where}" if paths else where
    return _Source(description, "; ".join(licences), pieces, found, tuple(notes))


class HubText(NamedTuple):
    """A cached .jsonl file with the train split of a hub data set, or the beginning of it."""

    path: Path
    licence: str | None
    left_out: int  # rows without usable text


def download_text(name: str, *, characters: int | None) -> HubText:
    """Download the text of `hf:NAME[:CONFIG]`, or about its first `characters`; use no network if it is cached."""
    dataset, _, configuration = name.removeprefix("hf:").partition(":")
    if not dataset:
        raise InputError(f"no data set named in {name!r}", where="DATA", fix="write hf:NAME or hf:NAME:CONFIG")
    path = cache_path("hub", ".jsonl", HUB_FORMAT, dataset, configuration, characters)

    def write(file: HashedFile) -> dict[str, Any]:
        rows = load_dataset(name, split="train", streaming=True)
        columns = getattr(rows, "column_names", None)
        if columns is not None and "text" not in columns:
            message = f'no column "text" (columns: {", ".join(columns)})'
            raise InputError(message, where=name, fix="choose a data set or :CONFIG with a text column")
        file.write(codecs.BOM_UTF8)  # it is read as UTF-8 whatever --encoding says of the user's own files
        written = left_out = 0
        with translate_dataset_errors(name):
            for row in rows:
                text = row.get("text")
                if not (isinstance(text, str) and text.strip()) or unusable_character(text):
                    left_out += 1
                    continue
                file.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
                written += len(text)
                if characters is not None and written >= characters:
                    break
            if not written:
                raise InputError("no text in this data set", where=name, fix="choose another data set or :CONFIG")
            licence = getattr(getattr(rows, "info", None), "license", None) or None
        return {"left_out": left_out, "licence": licence}

    facts = cached_file(path, write, need=lambda file: max(file.size, characters or 0))
    return HubText(path, facts["licence"], facts["left_out"])


def _split(source: _Source, fraction: float) -> tuple[TextPart, TextPart, Divided, list[str]]:
    """Hold out a fraction as `choose_split` does; also return notes on what is unusual about the split."""
    found, kept = source.scan, ~source.scan.blank
    if source.name_hashes is not None:
        below = hashes_below(source.name_hashes, fraction)
        return *_parts(source, Split(kept & ~below, below, np.zeros_like(kept))), []
    notes, documents = [], int(kept.sum())
    copies = documents - len(np.unique(found.hashes[kept]))
    if 0 < copies < documents - 1:
        what = "document(s) are copies (up to white space at the ends); all copies of a document are in the same split"
        notes.append(f"{copies:,} of {documents:,} {what}")
    split = choose_split(found, fraction)
    train, validation, both = _parts(source, split)
    if split.cut.any():
        notes.append(_cut_note(found, split))
    elif not validation.documents:
        message = "a document of one character cannot be split into training and validation text"
        raise InputError(message, where=found.longest.source, fix="add text")
    elif validation.about_bytes < fraction * (train.about_bytes + validation.about_bytes):
        exceeded = f"one more document would exceed {max_fraction(fraction):.1%} of the text"
        notes.append(f"validation is smaller than requested: {exceeded}")
    return train, validation, both, notes


def _parts(source: _Source, split: Split) -> tuple[TextPart, TextPart, Divided]:
    """Return both sides, and the function that reads them in one pass."""
    found = source.scan

    def both() -> Iterator[tuple[int, Piece]]:
        return divide(source.pieces(), split)

    train = _part(source, split.train, lambda: (piece for side, piece in both() if side == TRAIN))
    validation = _part(source, split.validation, lambda: (piece for side, piece in both() if side == VALIDATION))
    if split.cut.any():
        copies, before = found.utf8_bytes[split.cut], found.longest.fraction_before(split.cut_at)
        tails, head = round((1 - before) * int(copies.sum())), round(before * int(copies[0]))
        train = replace(train, key=f"{train.key}[:{split.cut_at}]", about_bytes=train.about_bytes - tails, is_cut=True)
        validation = replace(
            validation,
            key=f"{validation.key}[{split.cut_at}:]",
            about_bytes=validation.about_bytes - head,
            is_cut=True,
        )
    return train, validation, both


def _cut_note(found: Scan, split: Split) -> str:
    how = f"cut once, its first {split.cut_at:,} characters for training, the rest for validation"
    copies, kept = int(split.cut.sum()), ~found.blank
    if copies == kept.sum():
        return f"{'one document' if copies == 1 else f'{copies:,} copies of one document'}: {how}"
    whole = found.utf8_bytes[split.validation & ~split.cut].sum() / found.utf8_bytes[kept].sum()
    held_out = f"only {whole:.1%}" if whole else "nothing"
    return f"whole documents would hold out {held_out}, so the longest one ({found.longest.source}) is {how}"


def _part(source: _Source, members: NDArray[np.bool_], pieces: Pieces | None = None) -> TextPart:
    """Return the documents selected by the mask `members` (documents,), or what `pieces` reads of them."""
    chosen = members.tobytes()
    # Blank documents are not in the sha256 either, so they must not shift the others.
    among_texts = np.packbits(members[~source.scan.blank]).tobytes()
    return TextPart(
        pieces or (lambda: (piece for piece in source.pieces() if chosen[piece.document])),
        hashlib.sha256(f"{FORMAT} {source.scan.sha256} ".encode() + among_texts).hexdigest(),
        int(members.sum()),
        int(source.scan.utf8_bytes[members].sum()),
    )
