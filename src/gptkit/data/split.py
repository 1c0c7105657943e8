"""Which text validates: whole documents in the order of a hash of their text, or the tail of a long one.

A text is hashed and measured in its normal form, see `scanning`, so that near copies stay together.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptkit.data.pieces import Piece
from gptkit.data.scanning import Scan
from gptkit.errors import UsageError


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


@dataclass(frozen=True)
class Division:
    """Which documents validate; masks of shape (documents,)."""

    validates: NDArray[np.bool_]
    cut: NDArray[np.bool_]  # all copies of the one document that is cut after `cut_at` characters of its normal form
    cut_at: int = 0


def divide(found: Scan, fraction: float) -> Division:
    """Return how a corpus with text is divided; neither side is left without any, unless nothing can be cut.

    Whole documents validate where they come near the fraction: see `held_out`. Where they stay below half of it, the
    longest document, which is then larger than what is wanting, gives up its tail for the rest.
    """
    kept = ~found.blank
    validates = kept & held_out(found.hashes, np.where(kept, found.utf8_bytes, 0), fraction)
    total, taken = (int(found.utf8_bytes[side].sum()) for side in (kept, validates))
    copies = kept & (found.hashes == np.uint64(found.longest.hash))
    if taken >= fraction * total / 2 or validates[copies].any() or found.longest.characters < 2:
        return Division(validates, cut=np.zeros_like(kept))
    size = int(found.utf8_bytes[copies].sum())
    missing = fraction * (total / size) - taken / size  # of an only document, exactly `fraction`
    return Division(validates, copies, cut_point(found.longest.characters, missing))


def held_out(hashes: NDArray[np.uint64], utf8_bytes: NDArray[np.int64], fraction: float) -> NDArray[np.bool_]:
    """Return which documents validate: in the order of their hashes, until they hold `fraction` of all bytes.

    One that would take them over `most` is skipped. Documents of one hash count as one, so copies stay together.
    """
    order = np.argsort(hashes)
    starts = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]))  # of the copies of each text
    sizes: NDArray[np.int64] = np.add.reduceat(utf8_bytes[order], starts)
    chosen = np.zeros(len(starts), np.bool_)
    total = int(utf8_bytes.sum())
    enough, limit, taken = fraction * total, most(fraction) * total, 0
    for number, size in enumerate(sizes.data):
        if taken >= enough:
            break
        if taken + size <= limit:
            chosen[number] = True
            taken += size
    mask = np.zeros(len(hashes), np.bool_)
    mask[order] = np.repeat(chosen, np.diff(starts, append=len(hashes)))
    return mask


def most(fraction: float) -> float:
    """Return the largest fraction that may validate: half as much again, and no more than that from what trains."""
    return fraction + min(fraction, 1 - fraction) / 2


def below(hashes: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """Return which of at least two different hashes, as a share of 2^64, fall below the fraction.

    Where that leaves a side empty, the smallest hash validates or the largest one trains.
    """
    mask: NDArray[np.bool_] = hashes < np.uint64(fraction * 2**64)
    if not mask.any():
        mask = hashes == hashes.min()
    if mask.all():
        mask = hashes != hashes.max()
    return mask


def cut_point(characters: int, fraction: float) -> int:
    """Return how many of a document's characters (two or more, in normal form) train.

    With the line end that a text file has after them, this is nanoGPT's cut: int(n * (1 - fraction)).
    """
    return min(max(1, int((characters + 1) * (1 - fraction))), characters - 1)


def head(pieces: Iterable[Piece], cut: bytes, at: int) -> Iterator[Piece]:
    """Yield all pieces, but of each document where `cut` (documents,) is true only what stands before the cut."""
    for piece, index in _cut_indices(pieces, cut, at):
        if index is None:
            yield piece
        elif index:
            yield piece._replace(text=piece.text[:index])


def tail(pieces: Iterable[Piece], cut: bytes, at: int) -> Iterator[Piece]:
    """Yield all pieces, but of each document where `cut` (documents,) is true only what stands behind the cut."""
    for piece, index in _cut_indices(pieces, cut, at):
        if index is None:
            yield piece
        elif index < len(piece.text):
            yield piece._replace(text=piece.text[index:])


def _cut_indices(pieces: Iterable[Piece], cut: bytes, at: int) -> Iterator[tuple[Piece, int | None]]:
    """Yield each piece and where it is cut for `at` characters of normal form to stand before; None: not at all."""
    document, start = -1, 0  # of the document, in normal form
    for piece in pieces:
        if not cut[piece.document]:
            yield piece, None
            continue
        if piece.document != document:
            document, start = piece.document, 0
        text = piece.text
        margin = 0 if start else len(text) - len(text.lstrip())
        length = len(text) - margin - text.count("\r\n", margin)
        yield piece, len(text) if start + length <= at else _index(text, margin, at - start)
        start += length


def _index(text: str, begin: int, characters: int) -> int:
    """Return where so many characters of a text from `begin` on end, CR LF counted as one."""
    if characters <= 0:
        return 0
    match = re.compile(f"(?:\r\n|.){{{characters}}}+", re.DOTALL).match(text, begin)
    assert match is not None
    return match.end()
