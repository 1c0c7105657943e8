"""How much of an evaluation a training corpus holds: the share of its 8-grams that are there (GPT-2 paper, section 4).

GPT-2 kept its corpus in Bloom filters. Here the evaluations' 8-grams are kept and the corpus streams past, so that
memory is that of the evaluations, however large the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptkit.evaluate.ngram_hashes import BOUNDARY, LENGTH, Hashes, ngram_hashes, ngrams_of, word_hashes
from gptkit.text.examples import Example
from gptkit.text.find_files import find_files
from gptkit.text.pieces import Piece
from gptkit.text.readers import read_pieces


@dataclass(frozen=True, eq=False)
class Overlap:
    """What of an evaluation the corpus holds; a text that several items share counts once in `ngrams` and `found`.

    `shares` (item,) is that of each item's 8-grams, 0 where it has none; `items` (item,) tells where any was found.
    """

    ngrams: int
    found: int
    shares: NDArray[np.float64]

    @property
    def share(self) -> float:
        return self.found / self.ngrams if self.ngrams else 0.0

    @property
    def items(self) -> NDArray[np.bool_]:
        return self.shares > 0

    @property
    def items_with_overlap(self) -> int:
        return int(self.items.sum())


def texts_of(example: Example) -> tuple[str, ...]:
    """Return an example's texts: its single fields joined as they are read, and each entry of the others."""
    single = " ".join(one for one in example.fields if isinstance(one, str))
    return single, *(entry for one in example.fields if not isinstance(one, str) for entry in one)


def corpus_pieces(arguments: Sequence[str]) -> Iterator[Piece]:
    """Yield the text of files, folders, globs and hf:NAME; InputError for what cannot be read."""
    from gptkit.text.hub_rows import download_text

    paths: list[Path] = [file.path for file in find_files([one for one in arguments if not one.startswith("hf:")])[0]]
    paths += [download_text(one, characters=None).path for one in arguments if one.startswith("hf:")]
    for path in paths:
        yield from read_pieces(path)


def overlap(corpus: Iterable[Piece], sets: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, Overlap]:
    """Return the overlap of each set, given as the texts of each of its items, in one pass over the corpus."""
    wanted = {name: _Wanted(items) for name, items in sets.items()}
    known = np.unique(np.concatenate([np.empty(0, np.uint64), *(one.ngrams for one in wanted.values())]))
    seen = _search(known, ngram_hashes(_marked(corpus)))
    return {name: one.overlap(seen[np.searchsorted(known, one.ngrams)]) for name, one in wanted.items()}


class _Wanted:
    """A set's distinct texts and their 8-grams: `ngrams` (ngram,) and the text of each, `owners` (ngram,)."""

    def __init__(self, items: Sequence[Sequence[str]]) -> None:
        numbers: dict[str, int] = {}
        self._items = [[numbers.setdefault(text, len(numbers)) for text in dict.fromkeys(texts)] for texts in items]
        self._texts = len(numbers)
        words = np.concatenate([np.empty(0, np.uint64), *word_hashes((True, text) for text in numbers)])
        owners = np.cumsum(words == BOUNDARY) - 1  # (word,)
        first = np.arange(max(0, len(words) - LENGTH + 1))
        whole = (owners[first] == owners[first + LENGTH - 1]) & (words[first] != BOUNDARY)
        self.ngrams = ngrams_of(words)[whole]
        self.owners = owners[first][whole]

    def overlap(self, seen: NDArray[np.bool_]) -> Overlap:
        """Return the overlap, given which of `ngrams` the corpus holds."""
        totals = np.bincount(self.owners, minlength=self._texts)  # (text,)
        founds = np.bincount(self.owners[seen], minlength=self._texts)
        shares = [founds[texts].sum() / max(1, totals[texts].sum()) for texts in self._items]
        return Overlap(len(self.ngrams), int(seen.sum()), np.array(shares, dtype=np.float64))


def _search(known: Hashes, corpus: Iterable[Hashes]) -> NDArray[np.bool_]:
    """Return which of the sorted `known` hashes the corpus has."""
    seen = np.zeros(len(known), np.bool_)
    bits = min(27, max(16, 4 + len(known).bit_length()))
    buckets = (known >> np.uint64(64 - bits)).astype(np.intp)
    unseen = np.zeros(1 << bits, np.uint8)  # by a hash's first bits: spares most of the corpus the search
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


def _marked(corpus: Iterable[Piece]) -> Iterator[tuple[bool, str]]:
    """Yield each piece's text, and whether a document begins with it."""
    current = None
    for piece in corpus:
        place = (piece.source, piece.document)
        yield place != current, piece.text
        current = place
