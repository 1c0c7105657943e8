"""Which text validates: whole documents chosen by the hash of their text, or the tail of an only document."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from gptkit.data.pieces import Piece
from gptkit.errors import UsageError


@dataclass(frozen=True)
class Scan:
    """What one reading tells about a corpus; arrays of shape (documents,), 17 bytes a document."""

    hashes: NDArray[np.uint64]  # the first 64 bits of the sha256 of each text
    utf8_bytes: NDArray[np.int64]
    blank: NDArray[np.bool_]  # nothing but white space, or nothing at all: no part of the corpus
    first_characters: int  # length of the first document that is not blank
    sha256: str  # over the sha256 of each document that is not blank, in order: text and boundaries


def scan(pieces: Iterable[Piece]) -> Scan:
    """Read a corpus once."""
    hashes, utf8_bytes, blank = array("Q"), array("q"), array("b")
    whole, first_characters = hashlib.sha256(), 0
    for _, members in groupby(pieces, key=lambda piece: piece.document):
        text_hash, size, characters, has_text = hashlib.sha256(), 0, 0, False
        for piece in members:
            encoded = piece.text.encode()
            text_hash.update(encoded)
            size += len(encoded)
            characters += len(piece.text)
            has_text = has_text or not is_blank(piece.text)
        hashes.append(int.from_bytes(text_hash.digest()[:8], "big"))
        utf8_bytes.append(size)
        blank.append(not has_text)
        if has_text:
            whole.update(text_hash.digest())
            first_characters = first_characters or characters
    return Scan(
        hashes=np.array(hashes, np.uint64),
        utf8_bytes=np.array(utf8_bytes, np.int64),
        blank=np.array(blank, np.bool_),
        first_characters=first_characters,
        sha256=whole.hexdigest(),
    )


def is_blank(text: str) -> bool:
    return not text or text.isspace()


def name_hash(name: str) -> int:
    """Return the 64 bits that decide the side of a group of documents known by name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def fraction_of(validation: str) -> float | None:
    """Return the FRACTION that `validation` says, None when it is the name of a file; UsageError out of (0, 1)."""
    try:
        fraction = float(validation)
    except ValueError:
        return None
    if not (math.isfinite(fraction) and 0 < fraction < 1):
        message = f"a validation fraction of {validation} is not between 0 and 1"
        raise UsageError(message, where="--validation", fix="0.1 holds out a tenth of the documents; or name a file")
    return fraction


def held_out(hashes: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """Return which documents validate: those whose hash, as a share of 2^64, falls below the fraction.

    Equal texts stay together. Where that leaves a side empty, the smallest hash validates or the largest one trains;
    there must be two different hashes.
    """
    mask: NDArray[np.bool_] = hashes < np.uint64(fraction * 2**64)
    if not mask.any():
        mask = hashes == hashes.min()
    if mask.all():
        mask = hashes != hashes.max()
    return mask


def cut_point(characters: int, fraction: float) -> int:
    """Return how many characters of an only document train: int(n * (1 - fraction)), nanoGPT's cut."""
    return int(characters * (1 - fraction))


def head(pieces: Iterable[Piece], characters: int) -> Iterator[Piece]:
    """Yield the first `characters` characters of each document."""
    for start, piece in _positioned(pieces):
        if start < characters:
            yield piece._replace(text=piece.text[: characters - start])


def tail(pieces: Iterable[Piece], characters: int) -> Iterator[Piece]:
    """Yield what follows the first `characters` characters of each document."""
    for start, piece in _positioned(pieces):
        if start + len(piece.text) > characters:
            yield piece._replace(text=piece.text[max(0, characters - start) :])


def _positioned(pieces: Iterable[Piece]) -> Iterator[tuple[int, Piece]]:
    document, start = -1, 0
    for piece in pieces:
        if piece.document != document:
            document, start = piece.document, 0
        yield start, piece
        start += len(piece.text)
