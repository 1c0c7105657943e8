"""Contamination: the fraction of an evaluation's 8-grams that occur in a training corpus (GPT-2 paper, section 4).

GPT-2 kept its corpus in Bloom filters. This keeps the evaluations' 8-grams and streams the corpus past them, so memory
does not depend on the size of the corpus.

Words are lower-case runs of letters and digits. An 8-gram is a 64-bit hash: words of up to 8 bytes have distinct
hashes, longer ones chain theirs 8 bytes at a time, and an 8-gram's hash is a mixed linear form of its words' hashes.
The probability that an 8-gram collides with one of m others is about m / 2^64: 5e-13 for ten million. GPT-2's filters
allowed 1e-8.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.console import Console
from gptkit.evaluate.jobs import Job
from gptkit.evaluate.results import EvalResults
from gptkit.report.text import known_columns
from gptkit.scoring.measures import MEASURES, measure
from gptkit.scoring.protocols import Items
from gptkit.tasks.table import find_evaluation
from gptkit.text.examples import Example
from gptkit.text.pieces import Piece
from gptkit.text.readers import find_files, read_pieces

PAPER = ("GPT-2 paper: WebText", "GPT-2 paper: own training set")
COLUMNS = ("task", "8-grams", "in the corpus", "items with overlap", *PAPER)
LENGTH = 8  # words
CHUNK_BYTES = 1 << 18  # a chunk's arrays stay in the processor's cache

Hashes = NDArray[np.uint64]

_SEPARATOR = b" \xff "  # a word that no UTF-8 text has
_NO_WORD = re.compile(r"\W")
_ODD = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
_CHAIN, *_FORM = (np.uint64(constant) for constant in _ODD)
_MASKS = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)  # select an integer's first bytes
_WORD_BYTES = bytes(
    ord(chr(byte).lower()) if byte < 0x80 and chr(byte).isalnum() else byte if byte >= 0x80 else 0
    for byte in range(256)
)


@dataclass(frozen=True, eq=False)
class Overlap:
    """How many of an evaluation's 8-grams the corpus contains; a text that several items share counts once.

    `fractions` (item,) are those of each item's 8-grams, 0 if it has none.
    """

    ngrams: int
    found: int
    fractions: NDArray[np.float64]

    @property
    def fraction(self) -> float:
        return self.found / self.ngrams if self.ngrams else 0.0


def overlaps_with(corpus: str, jobs: Sequence[Job], console: Console) -> Mapping[str, Overlap]:
    """Return each task's overlap with the corpus; InputError for a corpus that cannot be read."""
    console.say(f"searching {corpus} for the examples' 8-grams")
    sets = {}
    for job in jobs:
        texts = (job.evaluation.texts if job.evaluation is not None else None) or texts_of
        sets[job.name] = [texts(example) for example in job.examples.examples]
    return overlap(corpus_pieces(corpus), sets)


def overlap_result(
    found: Mapping[str, Overlap], jobs: Sequence[Job], run: EvalResults, console: Console
) -> dict[str, Any]:
    """Print each task's overlap with the corpus and its scores without overlapping items; return both."""
    rows, clean_rows, result = [], [], {}
    for task, overlap in found.items():
        clean: dict[str, dict[str, Any]] = {}
        for job in jobs:
            if job.name == task:
                clean |= _clean_scores(job, overlap, run)
        count, row = int(np.count_nonzero(overlap.fractions)), find_evaluation(task)
        published = [f"{fraction:.2%}" for fraction in reversed(row.overlap)] if row and row.overlap else ["n/a"] * 2
        rows.append((task, f"{overlap.ngrams:,}", f"{overlap.fraction:.2%}", f"{count:,}", *published))
        for key, entry in clean.items():
            for name, figures in entry["metrics"].items():
                values = (run.results[key].metrics[name]["value"], figures["value"])
                clean_rows.append((key, name, *map(MEASURES[name].shown, values), f"{entry['n']:,}"))
        result[task] = {
            "ngrams": overlap.ngrams,
            "found": overlap.found,
            "share": overlap.fraction,
            "items_with_overlap": count,
            "without_overlap": clean,
        }
    console.table("8-gram overlap with the corpus", *known_columns(COLUMNS, rows))
    if clean_rows:
        console.table("without overlapping items", ("task", "measure", "all items", "without", "n"), clean_rows)
    return result


def _clean_scores(job: Job, overlap: Overlap, run: EvalResults) -> dict[str, dict[str, Any]]:
    """Return the gated measures without the overlapping items; empty if all or none overlap."""
    kept = np.flatnonzero(overlap.fractions == 0)
    if len(kept) in (0, len(overlap.fractions)):
        return {}
    clean = {}
    for protocol in job.protocols:
        key = f"{job.name}/{protocol.name}"
        items = run.results[key].items
        if items is not None and len(items.ids) == len(overlap.fractions):
            columns = {name: column[kept] for name, column in items.columns.items()}
            part = Items(tuple(items.ids[index] for index in kept), columns)
            clean[key] = {"n": len(kept), "metrics": measure(protocol.measures[: protocol.gated], part)}
    return clean


def texts_of(example: Example) -> tuple[str, ...]:
    """Return an example's texts: its single fields joined, then each entry of its lists."""
    single = " ".join(field for field in example.fields if isinstance(field, str))
    return single, *(entry for field in example.fields if not isinstance(field, str) for entry in field)


def corpus_pieces(corpus: str) -> Iterator[Piece]:
    """Yield the text of a file, folder, glob or hf:NAME; InputError if it cannot be read."""
    from gptkit.text.corpora import download_text

    if corpus.startswith("hf:"):
        paths = [download_text(corpus, characters=None).path]
    else:
        paths = [file.path for file in find_files([corpus])[0]]
    for path in paths:
        yield from read_pieces(path)


def overlap(corpus: Iterable[Piece], sets: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, Overlap]:
    """Return the overlap of each set in one pass over the corpus; a set lists the texts of each of its items."""
    wanted = {name: _Wanted(items) for name, items in sets.items()}
    known = np.unique(np.concatenate([np.empty(0, np.uint64), *(own.ngrams for own in wanted.values())]))
    seen = _search(known, ngram_hashes(corpus))
    return {name: own.overlap(seen[np.searchsorted(known, own.ngrams)]) for name, own in wanted.items()}


class _Wanted:
    """A set's distinct texts and their 8-grams: `ngrams` (ngram,) and the text of each, `owners` (ngram,)."""

    def __init__(self, items: Sequence[Sequence[str]]) -> None:
        numbers: dict[str, int] = {}
        self._items = [[numbers.setdefault(text, len(numbers)) for text in dict.fromkeys(texts)] for texts in items]
        self._texts = len(numbers)
        documents = (Piece(text, number, "") for text, number in numbers.items())
        words = np.concatenate([*word_hashes(documents)])
        owners = np.cumsum(words == BOUNDARY) - 1  # (word,)
        first = np.arange(max(0, len(words) - LENGTH + 1))
        whole = (owners[first] == owners[first + LENGTH - 1]) & (words[first] != BOUNDARY)
        self.ngrams = ngrams_of(words)[whole]
        self.owners = owners[first][whole]

    def overlap(self, seen: NDArray[np.bool_]) -> Overlap:
        """Return the overlap, given which of `ngrams` the corpus contains."""
        totals = np.bincount(self.owners, minlength=self._texts)  # (text,)
        founds = np.bincount(self.owners[seen], minlength=self._texts)
        fractions = [founds[texts].sum() / max(1, totals[texts].sum()) for texts in self._items]
        return Overlap(len(self.ngrams), int(seen.sum()), np.array(fractions, dtype=np.float64))


def _search(known: Hashes, corpus: Iterable[Hashes]) -> NDArray[np.bool_]:
    """Return which of the sorted `known` hashes occur in the corpus."""
    seen = np.zeros(len(known), np.bool_)
    bits = min(27, max(16, 4 + len(known).bit_length()))
    buckets = (known >> np.uint64(64 - bits)).astype(np.intp)
    unseen = np.zeros(1 << bits, np.uint8)  # by a hash's first bits: most of the corpus skips the search
    np.add.at(unseen, buckets, 1)
    for ngrams in corpus:
        candidates = ngrams[unseen[(ngrams >> np.uint64(64 - bits)).astype(np.intp)] > 0]
        if not len(candidates):
            continue
        places = np.minimum(np.searchsorted(known, candidates), len(known) - 1)
        places = np.unique(places[(known[places] == candidates) & ~seen[places]])
        seen[places] = True
        np.subtract.at(unseen, buckets[places], 1)
    return seen


def ngram_hashes(pieces: Iterable[Piece]) -> Iterator[Hashes]:
    """Yield the hashes of all 8-grams of a text, chunk by chunk.

    Pieces of one document are joined, even inside a word. An 8-gram that spans documents contains BOUNDARY, so its hash
    is that of no real 8-gram.
    """
    last = np.empty(0, np.uint64)
    for words in word_hashes(pieces):
        together = np.concatenate([last, words])
        yield ngrams_of(together)
        last = together[max(0, len(together) - LENGTH + 1) :]


def word_hashes(pieces: Iterable[Piece]) -> Iterator[Hashes]:
    """Yield the hashes (word,) of all words, chunk by chunk, with BOUNDARY before each document."""
    waiting: list[bytes] = []
    size, document = 0, None
    for piece in pieces:
        plain = _plain(piece.text)
        if (piece.source, piece.document) != document:
            document = (piece.source, piece.document)
            plain = _SEPARATOR + plain
        waiting.append(plain)
        size += len(plain)
        if size >= CHUNK_BYTES:
            content, begin = b"".join(waiting), 0
            while len(content) - begin >= CHUNK_BYTES:
                full = begin + CHUNK_BYTES
                space = max(content.rfind(b" ", begin, full), content.rfind(b"\n", begin, full))
                end = space if space > begin else full  # a chunk ends at white space, unless a word fills it
                yield _hashed(content[begin:end])
                begin = end
            waiting, size = [content[begin:]], len(content) - begin
    yield _hashed(b"".join(waiting))


def ngrams_of(words: Hashes) -> Hashes:
    """Return the hashes (word - 7,) of the 8-grams of consecutive words (word,)."""
    if len(words) < LENGTH:
        return np.empty(0, np.uint64)
    sums, width = words, 1
    for factor in _FORM:  # spans of 2, then 4, then 8 words
        sums, width = sums[:-width] * factor + sums[width:], 2 * width
    return _mixed(sums)


def _plain(text: str) -> bytes:
    """Return a text's bytes, in which a word is a run of ASCII letters, ASCII digits and bytes from 0x80."""
    content = text.encode()
    if text.isascii():
        return content
    foreign = np.flatnonzero(np.frombuffer(content, np.uint8) >= 0x80)  # far faster than a regex
    gaps = np.flatnonzero(np.diff(foreign) > 1)
    starts, ends = foreign[[0, *(gaps + 1)]], foreign[[*gaps, -1]] + 1  # (run,)
    parts, copied = [], 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        parts += [content[copied:start], _foreign(content[start:end])]
        copied = end
    return b"".join([*parts, content[copied:]])


@functools.lru_cache(maxsize=1 << 12)
def _foreign(run: bytes) -> bytes:
    return _NO_WORD.sub(" ", run.decode().lower()).encode()


def _hashed(content: bytes) -> Hashes:
    """Return the hashes (word,) of the words in bytes made by `_plain`."""
    padded = b"\0" + content.translate(_WORD_BYTES) + bytes(8)
    is_word = np.frombuffer(padded, np.uint8) != 0
    edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
    starts, lengths = edges[::2], edges[1::2] - edges[::2]  # (word,)
    eights = np.ndarray((len(padded) - 7,), np.dtype("<u8"), padded, strides=(1,))  # the 8 bytes at each position
    hashes = _mixed(eights[starts] & _MASKS[np.minimum(lengths, 8)])
    offset, longer = 8, np.flatnonzero(lengths > 8)
    while len(longer):
        more = eights[starts[longer] + offset] & _MASKS[np.minimum(lengths[longer] - offset, 8)]
        hashes[longer] = _mixed(hashes[longer] * _CHAIN + more)
        offset += 8
        longer = longer[lengths[longer] > offset]
    return hashes


def _mixed(hashes: Hashes) -> Hashes:
    """Apply splitmix64's finalizer: one to one, and every bit affects every bit."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


BOUNDARY = _hashed(_SEPARATOR)[0]
