"""Perplexity of running text: how a protocol reads a corpus, scores its tokens in windows, and sums them by passage.

Examples are passages (fields: the text) in the order of the corpus, named "<document>:<passage>". Each passage is an
item: `nll` and `tokens` cover the tokens that end in it; words, bytes and characters are counted in the text as its
authors distribute it, whatever the model reads of it or its tokenizer drops (GPT-1's lower-cases).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import UsageError
from gptkit.scoring.protocols import Answers, Group, Items, Request, ScoredProtocol, TokenIds, windows
from gptkit.text.examples import Example
from gptkit.text.words import count_words, unseparated

if TYPE_CHECKING:
    from gptkit.scoring.encoder import Encoder

Texts = Sequence[str]
Stride = Callable[[int], int]  # of n_positions
WINDOW = "window"  # a key of the settings: how many tokens the model reads at once
UNKNOWN_WORDS = 0.01  # of the tokens: with fewer, <unk> is one of the words, as in WikiText's own vocabulary
Joined = Literal["as they are", "by the separator", "not at all"]


def whole_window(n_positions: int) -> int:
    """Return the stride of disjoint windows."""
    return n_positions


def unchanged(texts: Texts) -> Texts:
    return texts


def count_spaced_words(texts: Texts) -> list[int]:
    """Return the number of white-space separated words of each passage."""
    return [len(text.split()) for text in texts]


def count_words_and_line_ends(texts: Texts) -> list[int]:
    """Return the number of words of each passage, counting line ends as words: <eos> of word-level corpora."""
    return [len(text.split()) + text.count("\n") for text in texts]


@dataclass(frozen=True)
class Reading:
    """How a model reads a corpus: as one stream of joined documents, or each on its own, always after the separator.

    `counted` returns a document's passages as the text whose units are counted, and `words` counts their words.
    `render` returns what the model reads of a stream's passages. All three keep the number of passages.
    """

    joined: Joined
    counted: Callable[[Texts], Texts] = unchanged
    render: Callable[[Texts], Texts] = unchanged
    words: Callable[[Texts], Sequence[int]] = count_spaced_words


class Stream(NamedTuple):
    """A separator and tokens (1 + tokens,), and how many of them end in each passage from number `first` on."""

    ids: TokenIds
    first: int
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class TextProtocol(ScoredProtocol):
    """A protocol that reads running text as `reading` says, in windows of n_positions with the given stride."""

    reading: Reading = field(kw_only=True)
    stride: Stride = field(kw_only=True, default=whole_window)
    scores_contexts = True
    unscored: ClassVar[int] = 0  # tokens at the start of a stream that no window scores

    def requests(self, examples: Sequence[Example], encoder: Encoder) -> list[Group]:
        """Return for each passage the windows that begin to score in it, often none."""
        groups: list[list[Request]] = [[] for _ in examples]
        for stream in _streams(self.reading, tuple(examples), encoder):
            ends = 1 + np.cumsum(stream.counts)
            for position, request in self.windows(stream.ids, encoder):
                groups[stream.first + int(np.searchsorted(ends, position, side="right"))].append(request)
        return [tuple(group) for group in groups]

    def items(
        self, examples: Sequence[Example], groups: Sequence[Group], answers: Sequence[Answers], encoder: Encoder
    ) -> Items:
        """Return the passages' scores."""
        streams = _streams(self.reading, tuple(examples), encoder)
        counts = np.concatenate([stream.counts for stream in streams])
        counts[np.flatnonzero(counts)[:1]] -= self.unscored
        scored = [answer.log_probs for group in answers for answer in group]  # in the order of the passages' tokens
        passage = np.repeat(np.arange(len(counts)), counts)
        documents = [self.reading.counted(document) for document in _documents(examples)]
        counted = [text for document in documents for text in document]
        words = [count for document in documents for count in self.reading.words(document)]
        columns = {
            "nll": np.bincount(passage, weights=-np.concatenate([np.zeros(0), *scored]), minlength=len(counts)),
            "tokens": counts,
            "words": words,
            "bytes": [len(text.encode()) for text in counted],
            "characters": [len(text) for text in counted],
        }
        undefined = {}
        if reason := unseparated(sum(words), counted):
            undefined["word_perplexity"] = reason
            columns["unicode_words"] = [count_words(text) for text in counted]
        if unknown := sum(int((stream.ids[1 + self.unscored :] == encoder.unknown).sum()) for stream in streams):
            reason = f"{unknown:,} of the text's {counts.sum():,} tokens are unknown to the tokenizer"
            undefined |= dict.fromkeys(("bits_per_byte", "bits_per_character"), reason)
            if unknown > UNKNOWN_WORDS * counts.sum():
                undefined |= dict.fromkeys(("word_perplexity", "unicode_word_perplexity"), reason)
        return Items(
            tuple(example.identifier for example in examples),
            {name: np.asarray(column, np.float64) for name, column in columns.items()},
            undefined=undefined,
        )

    def entropies(self, examples: Sequence[Example]) -> dict[str, float]:
        """Return the bits per byte and per character of a model that knows only how often each occurs in the text."""
        text = "".join(part for document in _documents(examples) for part in self.reading.counted(document))
        return {
            "bits_per_byte": _entropy(text.encode(), 1),
            "bits_per_character": _entropy(text.encode("utf-32-le"), 4),
        }

    def windows(self, ids: TokenIds, encoder: Encoder) -> Iterator[tuple[int, Request]]:
        """Yield the windows over a stream (1 + tokens,), as (where scoring begins, request)."""
        return windows(ids, window=encoder.n_positions, stride=self._checked_stride(encoder))

    def settings(self, encoder: Encoder) -> Mapping[str, Any]:
        return {WINDOW: encoder.n_positions, "stride": self._checked_stride(encoder)}

    def _checked_stride(self, encoder: Encoder) -> int:
        """Return the stride; UsageError unless it scores every token once."""
        stride = self.stride(encoder.n_positions)
        if not 1 <= stride <= encoder.n_positions:
            fix = f"pass a value from 1 to {encoder.n_positions:,} (the model's n_positions)"
            raise UsageError(f"a stride of {stride:,} does not score every token once", where="--stride", fix=fix)
        return stride


@dataclass(frozen=True)
class ValidationProtocol(TextProtocol):
    """The protocol of pretrain's val_loss: disjoint windows of `block` tokens that begin with the stream's first."""

    block: int | None = field(kw_only=True)  # None: the model's n_positions
    unscored = 1

    def windows(self, ids: TokenIds, encoder: Encoder) -> Iterator[tuple[int, Request]]:
        block = self.block or encoder.n_positions
        for start in range(1, len(ids) - 1, block):
            yield start + 1, Request(ids[start : start + block + 1], 1)

    def settings(self, encoder: Encoder) -> Mapping[str, Any]:
        return dict.fromkeys((WINDOW, "stride"), self.block or encoder.n_positions)


def _entropy(content: bytes, size: int) -> float:
    """Return the entropy in bits of the frequencies of a text's units of `size` bytes."""
    _, counts = np.unique(np.frombuffer(content, f"<u{size}"), return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _documents(examples: Sequence[Example]) -> list[list[str]]:
    """Return the texts of each document's passages."""
    by_document = groupby(examples, key=lambda example: example.identifier.rpartition(":")[0])
    return [[str(example.fields[0]) for example in members] for _, members in by_document]


# Cached because the protocols of a corpus share readings, and each needs its streams for requests and for items.
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
