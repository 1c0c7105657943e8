"""Text as token ids in memory-mapped files, and the fixed-length blocks that models train on.

A stream is the tokens of one side of a corpus in order, with the tokenizer's separator between two documents: none
stands before the first or after the last. A block is sequence_length + 1 tokens; neighbours share one, so that
each token but a stream's first is predicted exactly once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import InputError
from gptkit.system.cache import cache_path, cached_file
from gptkit.system.files import HashedFile
from gptkit.text.pieces import Piece
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.text.tokenizers.encoding import encode_documents, ids_dtype
from gptkit.text.tokenizers.loading import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from gptkit.text.corpora import Corpus, TextPart


FORMAT = 1
_TOKENS_A_WRITE = 1 << 16
_READ_AHEAD_BYTES = 1 << 22  # what is read and not yet encoded, about

TokenIds = NDArray[np.uint16] | NDArray[np.uint32]
Progress = Callable[[int, int], None]  # (UTF-8 bytes done, all)


@dataclass(frozen=True)
class TokenStream:
    """Tokens of a text, shape (tokens,), mapped from `path`; opening it by `open_stream` costs nothing."""

    ids: TokenIds
    path: Path
    documents: int
    utf8_bytes: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class PreparedText:
    """Both sides of a corpus as tokens."""

    train: TokenStream
    validation: TokenStream
    notes: tuple[str, ...]  # lines for the log


def prepare(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, progress: Progress | None = None) -> PreparedText:
    """Tokenize a corpus, or find its tokens in the cache."""
    train = token_stream(corpus.train, tokenizer, progress)
    validation = token_stream(corpus.validation, tokenizer, progress)
    if len(validation) < 2:
        message = f"the validation text has {len(validation)} token(s), nothing to predict"
        raise InputError(message, where="--validation", fix="hold out a larger fraction, or name a file")
    note = f"{len(train):,} training tokens and {len(validation):,} for validation, in {train.path.parent}"
    return PreparedText(train, validation, (note,))


def token_stream(part: TextPart, tokenizer: PreTrainedTokenizerBase, progress: Progress | None = None) -> TokenStream:
    """Return the tokens of a text, from the cache or into it (sha256 of text, tokenizer and settings).

    A full disk is OutOfResources, a cache directory that cannot be written InputError; neither leaves a file behind.
    """
    dtype, separator = ids_dtype(tokenizer), separator_id(tokenizer)
    path = cache_path("tokens", ".bin", FORMAT, part.key, fingerprint(tokenizer), separator, dtype.str)
    done = 0

    def counted() -> Iterator[Piece]:
        nonlocal done
        for piece in part.pieces():
            done += len(piece.text) if piece.text.isascii() else len(piece.text.encode())
            yield piece

    def write(file: HashedFile) -> dict[str, Any]:
        encoded = encode_documents(tokenizer, counted())
        for ids in _with_separators(encoded, np.array([separator], dtype)):
            file.write(ids.view(np.uint8).data)
            if progress:
                progress(done, part.utf8_bytes)
        if done != part.utf8_bytes:
            raise InputError("the text changed while it was read", where="DATA", fix="run the command again")
        return {"dtype": dtype.str, "documents": part.documents, "utf8_bytes": part.utf8_bytes}

    def need(file: HashedFile) -> int:
        most = (part.utf8_bytes + part.documents) * dtype.itemsize  # a token a byte
        return min(most, file.size * part.utf8_bytes // max(done - _READ_AHEAD_BYTES, 1)) or most

    cached_file(path, write, need=need)
    return open_stream(path)


def open_stream(path: Path) -> TokenStream:
    """Map a stream that `token_stream` made: what a worker does with the path that the first process prepared."""
    facts = json.loads(path.with_name(path.name + ".json").read_bytes())
    dtype = np.dtype(facts["dtype"])
    ids = np.memmap(path, dtype, mode="r") if facts["size"] else np.empty(0, dtype)
    return TokenStream(ids, path, facts["documents"], facts["utf8_bytes"])


def _with_separators(encoded: Iterable[tuple[int, TokenIds]], separator: TokenIds) -> Iterator[NDArray[Any]]:
    """Yield the tokens of all documents in order, in arrays worth writing."""
    waiting: list[TokenIds] = []
    tokens, last_document = 0, None
    for document, ids in encoded:
        if document != last_document and last_document is not None:
            waiting.append(separator)
        last_document = document
        waiting.append(ids)
        tokens += len(ids) + 1
        if tokens >= _TOKENS_A_WRITE:
            yield np.concatenate(waiting)
            waiting, tokens = [], 0
    if waiting:
        yield np.concatenate(waiting)


class TrainingBlocks:
    """Blocks of a stream in training order: row r is block r % blocks_per_epoch of epoch r // blocks_per_epoch.

    Each epoch shifts the grid of blocks and visits them in another order, so the rows are a pure function of (seed,
    epoch, index). Too few tokens for one block is an InputError.
    """

    def __init__(self, tokens: TokenIds, sequence_length: int, seed: int) -> None:
        if len(tokens) <= sequence_length:
            message = f"the training text has {len(tokens):,} tokens, fewer than one block of {sequence_length + 1:,}"
            fix = f"--sequence-length {max(1, len(tokens) - 1)} or less, or more text"
            raise InputError(message, where="DATA", fix=fix)
        self._tokens, self._sequence_length, self._seed = tokens, sequence_length, seed
        # The grid may shift by sequence_length - 1, so a long stream has the same number of blocks in every epoch.
        self.blocks_per_epoch = max(1, (len(tokens) - sequence_length) // sequence_length)
        self._starts = lru_cache(maxsize=2)(self._epoch_starts)

    def rows(self, first_row: int, n: int) -> NDArray[np.int64]:
        """Return rows first_row to first_row + n - 1: token ids of shape (n, sequence_length + 1)."""
        rows = np.empty((n, self._sequence_length + 1), np.int64)
        for i in range(n):
            epoch, index = divmod(first_row + i, self.blocks_per_epoch)
            start = self._starts(epoch)[index]
            rows[i] = self._tokens[start : start + self._sequence_length + 1]
        return rows

    def _epoch_starts(self, epoch: int) -> NDArray[np.int64]:
        """Return where the blocks of an epoch begin, in their order, shape (blocks_per_epoch,)."""
        length = self._sequence_length
        slack = len(self._tokens) - 1 - self.blocks_per_epoch * length
        offset = epoch_offset(self._seed, epoch, length) % (slack + 1)
        return offset + length * block_order(self._seed, epoch, self.blocks_per_epoch)


def validation_windows(tokens: TokenIds, sequence_length: int) -> Iterator[NDArray[np.int64]]:
    """Yield windows of at most sequence_length + 1 tokens that predict every token but the first exactly once."""
    for start in range(0, len(tokens) - 1, sequence_length):
        yield tokens[start : start + sequence_length + 1].astype(np.int64)


# The counter's highest word keeps the draws of different purposes apart.
_ORDER, _OFFSET = 0, 1


def block_order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """Return the permutation of range(n) in which an epoch visits its n blocks."""
    return np.argsort(_raw(seed, epoch, _ORDER, n), kind="stable")  # stable: equal draws keep one order


def epoch_offset(seed: int, epoch: int, sequence_length: int) -> int:
    """Return where an epoch's first block begins, 0 to sequence_length - 1: blocks begin elsewhere in each epoch."""
    return int(_raw(seed, epoch, _OFFSET, 1)[0] % np.uint64(sequence_length))


def _raw(seed: int, epoch: int, purpose: int, n: int) -> NDArray[np.uint64]:
    key = np.array([seed, epoch], np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, 0, purpose], np.uint64)).random_raw(n)
