"""The likelihood of running text: how a protocol reads a corpus, its tokens in windows, and their scores by passage.

Examples are passages (fields: the text) in the order of the corpus, named "<document>:<passage>". A passage is an item:
`nll` and `tokens` are those of the tokens that end in it, words, bytes and characters are counted in the text as its
authors distribute it, whatever the model reads of it or its tokenizer drops (GPT-1's lower-cases).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import UsageError
from gptkit.scoring.protocols import Answers, Group, Items, Request, ScoredProtocol, TokenIds, windows
from gptkit.text.examples import Example

if TYPE_CHECKING:
    from gptkit.scoring.encoder import Encoder

Texts = Sequence[str]
Stride = Callable[[int], int]  # of n_positions
Joined = Literal["as they are", "by the separator", "not at all"]


def whole_window(n_positions: int) -> int:
    """Return the stride of disjoint windows."""
    return n_positions


def unchanged(texts: Texts) -> Texts:
    return texts


def count_words(texts: Texts) -> list[int]:
    """Return the number of words, parted by white space, of each passage."""
    return [len(text.split()) for text in texts]


def count_words_and_line_ends(texts: Texts) -> list[int]:
    """Return the words of each passage, the end of a line being one: <eos> of the word-level corpora."""
    return [len(text.split()) + text.count("\n") for text in texts]


@dataclass(frozen=True)
class Reading:
    """What a model reads of a corpus: its documents joined to one stream, or each alone, always after the separator.

    `counted` gives a document's passages as their units are counted, `words` counts theirs. `render` gives what the
    model reads of the passages of a stream. All three return as many as they are given.
    """

    joined: Joined
    counted: Callable[[Texts], Texts] = unchanged
    render: Callable[[Texts], Texts] = unchanged
    words: Callable[[Texts], Sequence[int]] = count_words


class Stream(NamedTuple):
    """Tokens (1 + tokens,) behind a separator, and how many of them end in each of the passages from `first` on."""

    ids: TokenIds
    first: int
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class TextProtocol(ScoredProtocol):
    """The protocol that reads running text as `reading` says, in windows of n_positions with this stride."""

    reading: Reading = field(kw_only=True)
    stride: Stride = field(kw_only=True, default=whole_window)

    def requests(self, examples: Sequence[Example], encoder: Encoder) -> list[Group]:
        """Return a group for each passage: the windows whose scored tokens begin in it, often none."""
        step = self._checked_stride(encoder)
        groups: list[list[Request]] = [[] for _ in examples]
        for stream in _streams(self.reading, tuple(examples), encoder):
            ends = 1 + np.cumsum(stream.counts)
            for position, request in windows(stream.ids, window=encoder.n_positions, stride=step):
                groups[stream.first + int(np.searchsorted(ends, position, side="right"))].append(request)
        return [tuple(group) for group in groups]

    def items(
        self, examples: Sequence[Example], groups: Sequence[Group], answers: Sequence[Answers], encoder: Encoder
    ) -> Items:
        """Return the passages' scores."""
        counts = np.concatenate([stream.counts for stream in _streams(self.reading, tuple(examples), encoder)])
        scored = [answer.log_probs for group in answers for answer in group]  # passages and windows are in one order
        passage = np.repeat(np.arange(len(counts)), counts)
        documents = [self.reading.counted(document) for document in _documents(examples)]
        counted = [text for document in documents for text in document]
        columns = {
            "nll": np.bincount(passage, weights=-np.concatenate([np.zeros(0), *scored]), minlength=len(counts)),
            "tokens": counts,
            "words": [count for document in documents for count in self.reading.words(document)],
            "bytes": [len(text.encode()) for text in counted],
            "characters": [len(text) for text in counted],
        }
        return Items(
            tuple(example.identifier for example in examples),
            {name: np.asarray(column, np.float64) for name, column in columns.items()},
        )

    def settings(self, encoder: Encoder) -> Mapping[str, Any]:
        return {"window": encoder.n_positions, "stride": self._checked_stride(encoder)}

    def _checked_stride(self, encoder: Encoder) -> int:
        """Return the stride; UsageError unless every token is scored once with it."""
        stride = self.stride(encoder.n_positions)
        if not 1 <= stride <= encoder.n_positions:
            fix = f"give 1 to {encoder.n_positions:,}, the model's n_positions"
            raise UsageError(f"a stride of {stride:,} does not score every token once", where="--stride", fix=fix)
        return stride


def _documents(examples: Sequence[Example]) -> list[list[str]]:
    """Return the passages of each document."""
    by_document = groupby(examples, key=lambda example: example.identifier.rpartition(":")[0])
    return [[str(example.fields[0]) for example in members] for _, members in by_document]


# Protocols of one corpus share readings, and ask for requests before they ask for items.
@lru_cache(maxsize=4)
def _streams(reading: Reading, examples: tuple[Example, ...], encoder: Encoder) -> tuple[Stream, ...]:
    documents: Sequence[Texts] = [reading.counted(document) for document in _documents(examples)]
    if reading.joined == "as they are":
        documents = [[text for document in documents for text in document]]
    passages = encoder.encode_passages([reading.render(document) for document in documents])
    separator = np.array([encoder.separator], np.int64)
    if reading.joined == "by the separator":
        later = ([np.concatenate([separator, ids[0]]), *ids[1:]] for ids in passages[1:])
        passages = [[part for document in (*passages[:1], *later) for part in document]]
    streams, first = [], 0
    for ids in passages:
        counts = np.array([len(part) for part in ids], np.int64)
        streams.append(Stream(np.concatenate([separator, *ids]), first, counts))
        first += len(ids)
    return tuple(streams)
