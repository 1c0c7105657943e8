"""Tokenize a corpus into memory-mapped files, and cut the tokens into the fixed-length blocks that models train on.

A stream holds the tokens of one side of a corpus in order, with the tokenizer's separator between documents but not
before the first or after the last. A block is sequence_length + 1 tokens; neighbouring blocks share one token, so that
every token except a stream's first is predicted exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import InputError
from gptkit.system.cache import cache_path, cached_files
from gptkit.system.files import HashedFile
from gptkit.text.corpora import Corpus, Divided, TextPart, utf8_length
from gptkit.text.pieces import Piece
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.text.tokenizers.encoding import count_unknown, encode_documents, ids_dtype
from gptkit.text.tokenizers.loading import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


FORMAT = 1  # of cached tokens
_BYTES_PER_WRITE = 1 << 17
_READ_AHEAD_BYTES = 1 << 22  # read but not yet encoded, about

TokenIds = NDArray[np.uint16] | NDArray[np.uint32]


@dataclass(frozen=True)
class TokenStream:
    """The tokens of a text: `ids`, shape (tokens,), memory-mapped from `path`.

    `unknown` of them stand for text that the tokenizer does not know.
    """

    ids: TokenIds
    path: Path
    utf8_bytes: int
    unknown: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class PreparedText:
    """Both sides of a corpus as tokens."""

    train: TokenStream
    validation: TokenStream


def prepare(corpus: Corpus, tokenizer: PreTrainedTokenizerBase) -> PreparedText:
    """Return the tokens of a corpus, from the cache or by reading its text once.

    InputError if the validation text has no token to predict.
    """
    if corpus.both:
        train, validation = _token_streams([corpus.train, corpus.validation], corpus.both, tokenizer)
    else:
        train, validation = token_stream(corpus.train, tokenizer), token_stream(corpus.validation, tokenizer)
    if len(validation) < 2:
        message = f"the validation text has {len(validation)} token(s), nothing to predict"
        raise InputError(message, where="--validation", fix="hold out a larger fraction, or pass a file")
    return PreparedText(train, validation)


def token_stream(part: TextPart, tokenizer: PreTrainedTokenizerBase) -> TokenStream:
    """Return the tokens of one side."""
    [stream] = _token_streams([part], lambda: ((0, piece) for piece in part.pieces()), tokenizer)
    return stream


def _token_streams(parts: Sequence[TextPart], read: Divided, tokenizer: PreTrainedTokenizerBase) -> list[TokenStream]:
    """Return the tokens of each part, from the cache if possible; the key is made of text, tokenizer and dtype.

    OutOfResources if the disk is full, InputError if the cache cannot be written; neither leaves a file behind.
    """
    dtype, separator = ids_dtype(tokenizer), separator_id(tokenizer)
    settings = (fingerprint(tokenizer), separator, dtype.str)
    paths = [cache_path("tokens", ".bin", FORMAT, part.key, *settings) for part in parts]
    done = [0] * len(parts)  # UTF-8 bytes read of each part

    def counted() -> Iterator[Piece]:
        for number, piece in read():
            done[number] += utf8_length(piece.text)
            yield piece._replace(document=piece.document * len(parts) + number)  # a document that is cut becomes two

    def write(files: list[HashedFile]) -> list[dict[str, Any]]:
        between = np.array([separator], dtype).tobytes()
        waiting, last = [bytearray() for _ in parts], [-1 for _ in parts]  # unwritten bytes and document, by part
        for document, ids in encode_documents(tokenizer, counted()):
            number = document % len(parts)
            if last[number] not in (-1, document):
                waiting[number] += between
            last[number] = document
            waiting[number] += ids.tobytes()
            if len(waiting[number]) >= _BYTES_PER_WRITE:
                files[number].write(bytes(waiting[number]))
                waiting[number].clear()
        for file, rest in zip(files, waiting, strict=True):
            file.write(bytes(rest))
        # The dtype and the number of documents are for older versions, which share the cache.
        return [
            {"dtype": dtype.str, "documents": part.documents, "utf8_bytes": count}
            for part, count in zip(parts, done, strict=True)
        ]

    def need(files: list[HashedFile]) -> int:
        utf8_bytes = sum(part.about_bytes for part in parts)
        most = (utf8_bytes + sum(part.documents for part in parts)) * dtype.itemsize  # one token per byte
        so_far = sum(file.size for file in files)
        return min(most, so_far * utf8_bytes // max(sum(done) - _READ_AHEAD_BYTES, 1)) or most

    streams = []
    for path, facts in zip(paths, cached_files(paths, write, need=need), strict=True):
        ids = np.memmap(path, dtype, mode="r") if facts["size"] else np.empty(0, dtype)
        streams.append(TokenStream(ids, path, facts["utf8_bytes"], count_unknown(tokenizer, ids)))
    return streams


class TrainingBlocks:
    """The blocks of a stream in training order: row r is block r % blocks_per_epoch of epoch r // blocks_per_epoch.

    Each epoch shifts the block grid and visits the blocks in a different order; a row depends only on (seed, epoch,
    index). InputError if there are too few tokens for one block.
    """

    def __init__(self, tokens: TokenIds, sequence_length: int, seed: int) -> None:
        if len(tokens) <= sequence_length:
            message = f"the training text has {len(tokens):,} tokens, fewer than one block of {sequence_length + 1:,}"
            fix = f"add text (100 kB is a start), or lower --sequence-length to {max(1, len(tokens) - 1)} or less"
            raise InputError(message, where="DATA", fix=fix)
        self._tokens, self._sequence_length, self._seed = tokens, sequence_length, seed
        # Leaves room to shift the grid by sequence_length - 1, so that every epoch has the same number of blocks.
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
        """Return the start of each block of an epoch in training order, shape (blocks_per_epoch,)."""
        length = self._sequence_length
        slack = len(self._tokens) - 1 - self.blocks_per_epoch * length
        offset = epoch_offset(self._seed, epoch, length) % (slack + 1)
        return offset + length * block_order(self._seed, epoch, self.blocks_per_epoch)


def validation_windows(tokens: TokenIds, sequence_length: int) -> Iterator[NDArray[np.int64]]:
    """Yield windows of at most sequence_length + 1 tokens that predict every token but the first exactly once."""
    for start in range(0, len(tokens) - 1, sequence_length):
        yield tokens[start : start + sequence_length + 1].astype(np.int64)


# Random draws for different purposes differ in the highest word of the counter.
_ORDER, _OFFSET, MASKS = 0, 1, 2


def block_order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """Return the permutation of range(n) in which an epoch visits its n blocks."""
    return np.argsort(draws(seed, epoch, _ORDER, n), kind="stable")  # stable: equal draws keep one order


def epoch_offset(seed: int, epoch: int, sequence_length: int) -> int:
    """Return the shift of an epoch's block grid, 0 to sequence_length - 1."""
    return int(draws(seed, epoch, _OFFSET, 1)[0] % np.uint64(sequence_length))


def draws(seed: int, number: int, purpose: int, n: int) -> NDArray[np.uint64]:
    """Return n random words; `number` is an epoch or a row."""
    key = np.array([seed, number], np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, 0, purpose], np.uint64)).random_raw(n)
