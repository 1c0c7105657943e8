"""The 8-grams of a stream of text as 64-bit hashes, a chunk at a time.

Words are runs of letters and digits in lower case (GPT-2 paper, section 4). Words of up to 8 bytes have distinct
hashes, longer ones chain theirs 8 bytes at a time; an 8-gram's is a linear form in its words', mixed. So one 8-gram is
taken for one of m others with a probability of about m / 2^64: 5e-13 for ten million; GPT-2's filters allowed 1e-8.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

LENGTH = 8  # words
CHUNK_BYTES = 1 << 18  # small enough that a chunk's arrays stay in a processor's cache

Hashes = NDArray[np.uint64]

_SEPARATOR = b" \xff "  # a word that no UTF-8 text has
_NO_WORD = re.compile(r"\W")
_ODD = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
_CHAIN, *_FORM = (np.uint64(one) for one in _ODD)
_MASKS = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)  # of an integer's first bytes
_WORD_BYTES = bytes(
    ord(chr(byte).lower()) if byte < 0x80 and chr(byte).isalnum() else byte if byte >= 0x80 else 0
    for byte in range(256)
)


def ngram_hashes(texts: Iterable[tuple[bool, str]]) -> Iterator[Hashes]:
    """Yield the hashes of all 8-grams of (begins a document, text), of which none goes across documents.

    Texts that go on are parts of one, a word that two of them share included. What holds a boundary of documents is
    there too, as a hash that no 8-gram has.
    """
    last = np.empty(0, np.uint64)
    for words in word_hashes(texts):
        together = np.concatenate([last, words])
        yield ngrams_of(together)
        last = together[max(0, len(together) - LENGTH + 1) :]


def word_hashes(texts: Iterable[tuple[bool, str]]) -> Iterator[Hashes]:
    """Yield the hashes (word,) of all words, BOUNDARY before each document."""
    waiting: list[bytes] = []
    size = 0
    for begins, text in texts:
        plain = _SEPARATOR + _plain(text) if begins else _plain(text)
        waiting.append(plain)
        size += len(plain)
        if size >= CHUNK_BYTES:
            content, begin = b"".join(waiting), 0
            while len(content) - begin >= CHUNK_BYTES:
                end = _last_space(content, begin, begin + CHUNK_BYTES)
                yield _hashed(content[begin:end])
                begin = end
            waiting, size = [content[begin:]], len(content) - begin
    yield _hashed(b"".join(waiting))


def ngrams_of(words: Hashes) -> Hashes:
    """Return the hashes (word - 7,) of the 8-grams of words in a row."""
    if len(words) < LENGTH:
        return np.empty(0, np.uint64)
    sums, width = words, 1
    for factor in _FORM:  # of 2, then 4, then 8 words
        sums, width = sums[:-width] * factor + sums[width:], 2 * width
    return _mixed(sums)


def _plain(text: str) -> bytes:
    """Return a text's bytes, in which a word is a run of ASCII's letters and digits and of all bytes from 0x80."""
    content = text.encode()
    if text.isascii():
        return content
    foreign = np.flatnonzero(np.frombuffer(content, np.uint8) >= 0x80)  # many times as fast as a regular expression
    gaps = np.flatnonzero(np.diff(foreign) > 1)
    starts, ends = foreign[[0, *(gaps + 1)]], foreign[[*gaps, -1]] + 1  # (run,)
    parts, told = [], 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        parts += [content[told:start], _foreign(content[start:end])]
        told = end
    return b"".join([*parts, content[told:]])


@functools.lru_cache(maxsize=1 << 12)
def _foreign(run: bytes) -> bytes:
    return _NO_WORD.sub(" ", run.decode().lower()).encode()


def _last_space(content: bytes, begin: int, end: int) -> int:
    """Return where a chunk ends: at its last white space, or where it is full if a word fills it."""
    space = max(content.rfind(b" ", begin, end), content.rfind(b"\n", begin, end))
    return space if space > begin else end


def _hashed(content: bytes) -> Hashes:
    """Return the hashes (word,) of plain bytes' words."""
    padded = b"\0" + content.translate(_WORD_BYTES) + bytes(8)
    is_word = np.frombuffer(padded, np.uint8) != 0
    edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
    starts, lengths = edges[::2], edges[1::2] - edges[::2]  # (word,)
    eights = np.ndarray((len(padded) - 7,), np.dtype("<u8"), padded, strides=(1,))  # the 8 bytes from each place on
    hashes = _mixed(eights[starts] & _MASKS[np.minimum(lengths, 8)])
    offset, longer = 8, np.flatnonzero(lengths > 8)
    while len(longer):
        more = eights[starts[longer] + offset] & _MASKS[np.minimum(lengths[longer] - offset, 8)]
        hashes[longer] = _mixed(hashes[longer] * _CHAIN + more)
        offset += 8
        longer = longer[lengths[longer] > offset]
    return hashes


def _mixed(hashes: Hashes) -> Hashes:
    """Return splitmix64's finaliser of each: one to one, and every bit bears on every bit."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


BOUNDARY = _hashed(_SEPARATOR)[0]
