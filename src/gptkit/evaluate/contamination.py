"""Contamination: the fraction of an evaluation's 8-grams that occur in a training corpus (GPT-2 paper, section 4).

GPT-2 kept its corpus in Bloom filters. This keeps the evaluations' 8-grams and streams the corpus past them, so memory
does not depend on the size of the corpus.

Words are lower-case runs of letters and digits, as in the paper; but Unicode's words (text/words.py) for texts of which
that rule finds fewer than half, such as Chinese (no spaces) or Hindi (vowel signs are no letters).

An 8-gram is a 64-bit hash: words of up to 8 bytes have distinct hashes, longer ones chain theirs 8 bytes at a time, and
an 8-gram's hash is a mixed linear form of its words' hashes. The probability that an 8-gram collides with one of m
others is about m / 2^64: 5e-13 for ten million. GPT-2's filters allowed 1e-8.
"""

from __future__ import annotations

import functools
import os
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.console import Console
from gptkit.evaluate.jobs import Job
from gptkit.evaluate.results import EvalResults
from gptkit.report.text import known_columns
from gptkit.scoring.measures import MEASURES, measure
from gptkit.scoring.protocols import Items
from gptkit.text.examples import Example
from gptkit.text.pieces import Piece
from gptkit.text.readers import find_files, read_pieces
from gptkit.text.words import RULE, words_of

PAPER = ("GPT-2 paper: WebText", "GPT-2 paper: own training set")
COLUMNS = ("task", "8-grams", "in the corpus", "items with overlap", *PAPER)
NO_NGRAMS = "no text has 8 words in a row"
LENGTH = 8  # words
CHUNK_BYTES = 1 << 18  # a chunk's arrays stay in the processor's cache

Hashes = NDArray[np.uint64]

_SEPARATOR = b" \xff "  # a word that no UTF-8 text has
_NO_WORD = re.compile(r"\W")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LONGEST = 1 << 16  # characters of a word that pieces may cut
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

    `fractions` (item,) are those of each item's 8-grams, NaN if it has none. `by_unicode`: the words are Unicode's.
    """

    ngrams: int
    found: int
    fractions: NDArray[np.float64]
    by_unicode: bool = False

    @property
    def fraction(self) -> float | None:
        return self.found / self.ngrams if self.ngrams else None


def overlaps_with(corpus: str, jobs: Sequence[Job], console: Console) -> Mapping[str, Overlap]:
    """Return each task's overlap with the corpus; InputError for a corpus that cannot be read."""
    console.say(f"searching {corpus} for the examples' 8-grams")
    sets = {}
    for job in jobs:
        texts = (job.evaluation.texts if job.evaluation is not None else None) or texts_of
        sets[job.name] = [texts(example) for example in job.examples.examples]
    rules = {name: need_unicode(items) for name, items in sets.items()}
    found: dict[str, Overlap] = {}
    for by_unicode in {*rules.values()}:  # each reads the corpus once
        own = {name: items for name, items in sets.items() if rules[name] == by_unicode}
        found |= overlap(corpus_pieces(corpus), own, by_unicode=by_unicode)
    if not corpus.startswith("hf:"):
        _warn_of_copies(corpus, jobs, console)
    return {name: found[name] for name in sets}


def _warn_of_copies(corpus: str, jobs: Sequence[Job], console: Console) -> None:
    """Warn of evaluated files that are themselves in the corpus."""
    files = {os.path.realpath(file.path) for file in find_files([corpus])[0]}
    for job in jobs:
        sources = {re.sub(r":\d+$", "", example.where) for example in job.examples.examples}
        if copies := sorted(source for source in sources if os.path.realpath(source) in files):
            console.warn(f"{job.name}: {copies[0]} is itself in the corpus, so an overlap is no sign of contamination")


def overlap_result(
    found: Mapping[str, Overlap], jobs: Sequence[Job], run: EvalResults, console: Console
) -> dict[str, Any]:
    """Print each task's overlap with the corpus and its scores without overlapping items; return both."""
    rows, clean_rows, notes, result = [], [], [], {}
    for job in jobs:
        task, overlap, row = job.name, found[job.name], job.evaluation
        clean, count = _clean_scores(job, overlap, run), int((overlap.fractions > 0).sum())
        short = int(np.isnan(overlap.fractions).sum())
        published = [f"{fraction:.2%}" for fraction in reversed(row.overlap)] if row and row.overlap else ["n/a"] * 2
        shown = ("n/a", "n/a") if overlap.fraction is None else (f"{overlap.fraction:.2%}", f"{count:,}")
        rows.append((task, f"{overlap.ngrams:,}", *shown, *published))
        if overlap.fraction is None:
            notes.append(f"{task}: the overlap is n/a: {NO_NGRAMS}")
        elif short:
            notes.append(f"{task}: {short:,} of {len(overlap.fractions):,} items have no 8 words in a row to look for")
        if overlap.by_unicode and overlap.ngrams:
            notes.append(f"{task}: 8-grams of {RULE}; the paper's rule (runs of letters and digits) finds few of them")
        for key, entry in clean.items():
            for name, figures in entry["metrics"].items():
                values = (run.results[key].metrics[name]["value"], figures["value"])
                clean_rows.append((key, name, *map(MEASURES[name].shown, values), f"{entry['n']:,}"))
        result[task] = {
            "ngrams": overlap.ngrams,
            "found": overlap.found,
            "share": overlap.fraction,
            "items_with_overlap": None if overlap.fraction is None else count,
            "items_without_ngrams": short,
            "words": "unicode" if overlap.by_unicode else "letters and digits",
            "without_overlap": clean,
        } | ({"reason": NO_NGRAMS} if overlap.fraction is None else {})
    console.table("8-gram overlap with the corpus", *known_columns(COLUMNS, rows))
    for note in notes:
        console.result(note)
    if clean_rows:
        console.table("without overlapping items", ("task", "measure", "all items", "without", "n"), clean_rows)
    return result


def _clean_scores(job: Job, overlap: Overlap, run: EvalResults) -> dict[str, dict[str, Any]]:
    """Return the gated measures without the overlapping items; empty if all or none overlap."""
    kept = np.flatnonzero(~(overlap.fractions > 0))
    if len(kept) in (0, len(overlap.fractions)):
        return {}
    clean = {}
    for protocol in job.protocols:
        key = f"{job.name}/{protocol.name}"
        items = run.results[key].items
        if items is not None and len(items.ids) == len(overlap.fractions):
            columns = {name: column[kept] for name, column in items.columns.items()}
            part = Items(tuple(items.ids[index] for index in kept), columns, undefined=items.undefined)
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


def need_unicode(items: Sequence[Sequence[str]]) -> bool:
    """Return whether fewer than half of the words by Unicode's rule are words by the paper's, too."""
    texts = {text for texts in items for text in texts}
    if all(map(str.isascii, texts)):
        return False
    pieces = [Piece(text, number, "") for number, text in enumerate(texts)]
    paper, by_unicode = (np.concatenate([*word_hashes(pieces, by_unicode=rule)]) for rule in (False, True))
    by_unicode = by_unicode[by_unicode != BOUNDARY]
    return 2 * int(np.isin(by_unicode, paper).sum()) < len(by_unicode)


def overlap(
    corpus: Iterable[Piece], sets: Mapping[str, Sequence[Sequence[str]]], *, by_unicode: bool = False
) -> dict[str, Overlap]:
    """Return the overlap of each set in one pass over the corpus; a set lists the texts of each of its items."""
    wanted = {name: _Wanted(items, by_unicode) for name, items in sets.items()}
    known = np.unique(np.concatenate([np.empty(0, np.uint64), *(own.ngrams for own in wanted.values())]))
    seen = _search(known, ngram_hashes(corpus, by_unicode=by_unicode))
    return {name: own.overlap(seen[np.searchsorted(known, own.ngrams)]) for name, own in wanted.items()}


class _Wanted:
    """A set's distinct texts and their 8-grams: `ngrams` (ngram,) and the text of each, `owners` (ngram,)."""

    def __init__(self, items: Sequence[Sequence[str]], by_unicode: bool) -> None:
        self.by_unicode = by_unicode
        numbers: dict[str, int] = {}
        self._items = [[numbers.setdefault(text, len(numbers)) for text in dict.fromkeys(texts)] for texts in items]
        self._texts = len(numbers)
        documents = (Piece(text, number, "") for text, number in numbers.items())
        words = np.concatenate([*word_hashes(documents, by_unicode=by_unicode)])
        owners = np.cumsum(words == BOUNDARY) - 1  # (word,)
        first = np.arange(max(0, len(words) - LENGTH + 1))
        whole = (owners[first] == owners[first + LENGTH - 1]) & (words[first] != BOUNDARY)
        self.ngrams = ngrams_of(words)[whole]
        self.owners = owners[first][whole]

    def overlap(self, seen: NDArray[np.bool_]) -> Overlap:
        """Return the overlap, given which of `ngrams` the corpus contains."""
        totals = np.bincount(self.owners, minlength=self._texts)  # (text,)
        founds = np.bincount(self.owners[seen], minlength=self._texts)
        found, total = (
            np.array([counts[texts].sum() for texts in self._items], np.float64) for counts in (founds, totals)
        )
        fractions = np.divide(found, total, out=np.full(len(total), np.nan), where=total > 0)  # (item,)
        return Overlap(len(self.ngrams), int(seen.sum()), fractions, self.by_unicode)


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


def ngram_hashes(pieces: Iterable[Piece], *, by_unicode: bool) -> Iterator[Hashes]:
    """Yield the hashes of all 8-grams of a text, chunk by chunk.

    Pieces of one document are joined, even inside a word. An 8-gram that spans documents contains BOUNDARY, so its hash
    is that of no real 8-gram.
    """
    last = np.empty(0, np.uint64)
    for words in word_hashes(pieces, by_unicode=by_unicode):
        together = np.concatenate([last, words])
        yield ngrams_of(together)
        last = together[max(0, len(together) - LENGTH + 1) :]


def _unicode_words(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield the words of each document by Unicode's rule, without case, in pieces with a space after each word."""

    def written(words: Sequence[str]) -> str:
        return "".join(f"{word} " for word in words).translate(_NO_PUNCTUATION)

    for _, members in groupby(pieces, key=lambda piece: (piece.source, piece.document)):
        last = ""  # the last word and what follows it: it may go on in the next piece
        for piece in members:
            text = last + piece.text.casefold()
            words = words_of(text)
            last = text[text.rfind(words[-1]) :] if words else ""
            last = last if len(last) < _LONGEST else ""
            yield piece._replace(text=written(words[:-1] if last else words))
        yield piece._replace(text=written(words_of(last)))


def word_hashes(pieces: Iterable[Piece], *, by_unicode: bool) -> Iterator[Hashes]:
    """Yield the hashes (word,) of all words, chunk by chunk, with BOUNDARY before each document."""
    plain_of = str.encode if by_unicode else _plain
    waiting: list[bytes] = []
    size, document = 0, None
    for piece in _unicode_words(pieces) if by_unicode else pieces:
        plain = plain_of(piece.text)
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
