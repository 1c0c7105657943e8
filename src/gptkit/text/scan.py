"""One pass over a corpus: a hash and the size of each document.

Hashes are of the document's normal form: white space at the ends stripped, every line end LF. Copies that differ in
nothing else have equal hashes.
"""

from __future__ import annotations

import hashlib
import io
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from gptkit.text.pieces import Piece


@dataclass(frozen=True)
class Longest:
    """The document with the most characters in normal form; of several, the one with the smallest hash."""

    hash: int
    characters: int
    source: str
    characters_at: array[int]  # in normal form, at the end of each piece ...
    bytes_at: array[int]  # ... and the bytes of the unchanged text up to there

    def share_before(self, characters: int) -> float:
        """Return the share of its bytes before a character; within a piece as if all characters were equally long."""
        before = np.interp(characters, [0, *self.characters_at], [0, *self.bytes_at])
        return float(before / self.bytes_at[-1])


@dataclass(frozen=True)
class Scan:
    """What one pass learns about a corpus; arrays of shape (documents,), 17 bytes per document."""

    hashes: NDArray[np.uint64]  # the first 64 bits of the sha256 of each document's normal form
    utf8_bytes: NDArray[np.int64]  # of the unchanged text
    blank: NDArray[np.bool_]  # nothing but white space, or nothing at all: no part of the corpus
    longest: Longest
    sha256: str  # over the sha256 of each unchanged document that is not blank, in order


def scan(pieces: Iterable[Piece]) -> Scan:
    """Read a corpus once."""
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
    """Hash and length of a text's normal form, computed from its parts without keeping them."""

    def __init__(self) -> None:
        self._line_ends = io.IncrementalNewlineDecoder(None, translate=True)
        self._text = hashlib.sha256()
        self._trimmed = self._text  # its state after the last character that is not white space
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


def is_blank(text: str) -> bool:
    return not text or text.isspace()
