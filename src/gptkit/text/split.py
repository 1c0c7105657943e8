"""Choose the validation text: whole documents in the order of their hashes, or the tail of a long one.

One pass over the corpus finds the hash and size of each document. The hash is that of its normal form: white space at
the ends stripped, every line end LF. Copies that differ only in these have equal hashes, and stay on one side.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import UsageError
from gptkit.text.pieces import Piece


@dataclass(frozen=True)
class Longest:
    """The document with the most characters in normal form; among equals, the one with the smallest hash."""

    hash: int
    characters: int
    source: str
    characters_at: array[int]  # up to the end of each piece: characters in normal form ...
    bytes_at: array[int]  # ... and bytes of the unchanged text

    def fraction_before(self, characters: int) -> float:
        """Return the fraction of its bytes in the first `characters`, interpolated linearly within a piece."""
        before = np.interp(characters, [0, *self.characters_at], [0, *self.bytes_at])
        return float(before / self.bytes_at[-1])


@dataclass(frozen=True)
class Scan:
    """The result of one pass over a corpus; arrays have shape (documents,), and take 17 bytes per document."""

    hashes: NDArray[np.uint64]  # the first 64 bits of the sha256 of each document's normal form
    utf8_bytes: NDArray[np.int64]  # of the unchanged text
    blank: NDArray[np.bool_]  # empty or only white space: not part of the corpus
    longest: Longest
    sha256: str  # over the sha256 of each unchanged non-blank document, in order


def scan(pieces: Iterable[Piece]) -> Scan:
    """Read a corpus once, and return the hash and size of each document."""
    hashes, utf8_bytes, blank = array("Q"), array("q"), array("b")
    whole, longest = hashlib.sha256(), Longest(0, 0, "", array("q"), array("q"))
    for _, members in groupby(pieces, key=lambda piece: piece.document):
        text_hash, normal, size, source = hashlib.sha256(), _NormalForm(), 0, ""
        characters_at, bytes_at = array("q"), array("q")
        for piece in members:
            encoded = piece.text.encode()
            text_hash.update(encoded)
            normal.add(piece.text)
            size += len(encoded)
            characters_at.append(normal.read)
            bytes_at.append(size)
            source = source or piece.source
        hashes.append(normal.hash)
        utf8_bytes.append(size)
        blank.append(not normal.characters)
        if normal.characters:
            whole.update(text_hash.digest())
        if (normal.characters, -normal.hash) > (longest.characters, -longest.hash):
            longest = Longest(normal.hash, normal.characters, source, characters_at, bytes_at)
    return Scan(
        hashes=np.array(hashes, np.uint64),
        utf8_bytes=np.array(utf8_bytes, np.int64),
        blank=np.array(blank, np.bool_),
        longest=longest,
        sha256=whole.hexdigest(),
    )


class _NormalForm:
    """The hash and length of a text's normal form, computed incrementally from its parts."""

    def __init__(self) -> None:
        self._line_ends = io.IncrementalNewlineDecoder(None, translate=True)
        self._text = hashlib.sha256()
        self._trimmed = self._text  # its state after the last character other than white space
        self.read = self.characters = 0

    def add(self, text: str) -> None:
        text = self._line_ends.decode(text)
        if not self.characters:
            text = text.lstrip()
        trimmed = text.rstrip()
        if trimmed:
            self._text.update(trimmed.encode())
            self._trimmed = self._text.copy()
            self.characters = self.read + len(trimmed)
        if len(trimmed) < len(text):
            self._text.update(text[len(trimmed) :].encode())
        self.read += len(text)

    @property
    def hash(self) -> int:
        return int.from_bytes(self._trimmed.digest()[:8], "big")


def name_hash(name: str) -> int:
    """Return the 64-bit hash that decides on which side a group of documents with this name is."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def fraction_of(validation: str) -> float | None:
    """Parse --validation FILE|FRACTION: return the fraction, or None for a file name; UsageError outside (0, 1)."""
    try:
        fraction = float(validation)
    except ValueError:
        return None
    if not (math.isfinite(fraction) and 0 < fraction < 1):
        message = f"a validation fraction of {validation} is not between 0 and 1"
        raise UsageError(message, where="--validation", fix="pass a fraction such as 0.1, or a file")
    return fraction


TRAIN, VALIDATION = 0, 1


@dataclass(frozen=True)
class Split:
    """Which documents are on which side: masks of shape (documents,).

    The head of a document that is cut is training text. The tail is validation text if it is also in `validation`,
    which only the first copy is.
    """

    train: NDArray[np.bool_]
    validation: NDArray[np.bool_]
    cut: NDArray[np.bool_]  # every copy of the document that is cut
    cut_at: int = 0  # characters of its normal form that are training text


def choose_split(found: Scan, fraction: float) -> Split:
    """Split a corpus that has text; validation is empty only if no document is long enough to cut.

    Whole documents are held out if they reach at least half of the fraction. Otherwise the longest document is also
    cut, and its tail makes up the difference.
    """
    kept = ~found.blank
    validation = kept & held_out(found.hashes, np.where(kept, found.utf8_bytes, 0), fraction)
    total, taken = (int(found.utf8_bytes[side].sum()) for side in (kept, validation))
    copies = kept & (found.hashes == np.uint64(found.longest.hash))
    if taken >= fraction * total / 2 or validation[copies].any() or found.longest.characters < 2:
        return Split(kept & ~validation, validation, cut=np.zeros_like(kept))
    size = int(found.utf8_bytes[copies].sum())
    missing = fraction * (total / size) - taken / size  # exactly `fraction` if there is no other document
    train = kept & ~validation
    validation[np.flatnonzero(copies)[:1]] = True
    return Split(train, validation, copies, cut_point(found.longest.characters, missing))


def held_out(hashes: NDArray[np.uint64], utf8_bytes: NDArray[np.int64], fraction: float) -> NDArray[np.bool_]:
    """Select documents in the order of their hashes until they hold `fraction` of all bytes.

    Skip a document that would exceed `max_fraction`. Select documents with the same hash together.
    """
    _, text = np.unique(hashes, return_inverse=True)  # the number of each document's text, in the order of hashes
    sizes = np.bincount(text, utf8_bytes)  # (texts,) of all copies
    chosen = np.zeros(len(sizes), np.bool_)
    total = int(utf8_bytes.sum())
    enough, limit, taken = fraction * total, max_fraction(fraction) * total, 0
    for number, size in enumerate(sizes.data):
        if taken >= enough:
            break
        if taken + size <= limit:
            chosen[number] = True
            taken += size
    return chosen[text]


def max_fraction(fraction: float) -> float:
    """Return the largest acceptable fraction when `fraction` is asked for: half of the smaller side is added."""
    return fraction + min(fraction, 1 - fraction) / 2


def hashes_below(hashes: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """Select the hashes below `fraction` * 2^64, but of two or more distinct ones at least one and not all."""
    mask: NDArray[np.bool_] = hashes < np.uint64(fraction * 2**64)
    if not mask.any():
        mask = hashes == hashes.min()
    if mask.all():
        mask = hashes != hashes.max()
    return mask


def cut_point(characters: int, fraction: float) -> int:
    """Return how many characters of a document (in normal form, at least two) are training text.

    For a text file that ends in a newline, this is nanoGPT's int(n * (1 - fraction)).
    """
    return min(max(1, int((characters + 1) * (1 - fraction))), characters - 1)


def divide(pieces: Iterable[Piece], split: Split) -> Iterator[tuple[int, Piece]]:
    """Yield (TRAIN or VALIDATION, piece) in order, without the text that is on neither side."""
    train, validation, cut = (mask.tobytes() for mask in (split.train, split.validation, split.cut))
    document, start = -1, 0  # the piece's start in the normal form of its document
    for piece in pieces:
        number, text = piece.document, piece.text
        if not cut[number]:
            if train[number] or validation[number]:
                yield (TRAIN if train[number] else VALIDATION), piece
            continue
        if number != document:
            document, start = number, 0
        margin = 0 if start else len(text) - len(text.lstrip())
        length = len(text) - margin - text.count("\r\n", margin)
        characters = split.cut_at - start  # of this piece that are training text
        if length <= characters:
            end = len(text)
        elif characters <= 0:
            end = 0
        else:  # CR LF counts as one character
            match = re.compile(f"(?:\r\n|.){{{characters}}}+", re.DOTALL).match(text, margin)
            assert match is not None
            end = match.end()
        start += length
        if end:
            yield TRAIN, piece._replace(text=text[:end])
        if end < len(text) and validation[number]:
            yield VALIDATION, piece._replace(text=text[end:])
