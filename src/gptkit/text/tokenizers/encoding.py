"""Encode text to arrays of token ids, fast; special tokens are neither added nor recognized in the text."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gptkit.system.limits import usable_processors
from gptkit.text.pieces import Piece, batches, encoded_ahead
from gptkit.text.tokenizers.any_tokenizer import AnyTokenizer, unknown_id
from gptkit.text.tokenizers.kinds import fast_encoder

TokenIds = NDArray[np.uint16] | NDArray[np.uint32]
Encode = Callable[[Sequence[str]], list[TokenIds]]

# The backend's encodings take some hundred bytes per token until their ids are extracted, so this bounds the memory.
_BATCH_CHARACTERS = 1 << 20
_BATCHES_IN_FLIGHT = 3  # two being encoded, one with the consumer


def ids_dtype(tokenizer: AnyTokenizer) -> np.dtype[Any]:
    """Return the smallest dtype that holds every id of the tokenizer."""
    return np.dtype(np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32)


def encode_pieces(tokenizer: AnyTokenizer, pieces: Sequence[str]) -> list[TokenIds]:
    """Return the ids (tokens,) of each text, encoded in parallel. Thread-safe.

    Each must be a whole text; for parts of a text use `encode_documents`. A literal `<|endoftext|>` is ordinary text.
    """
    return _encoder(tokenizer)(pieces)


def encode_documents(tokenizer: AnyTokenizer, pieces: Iterable[Piece]) -> Iterator[tuple[int, TokenIds]]:
    """Yield (document, ids) in order; the arrays of a document, one or more, concatenate to the ids of its whole text.

    `pieces` may cut a document where `pieces.cut` does: before white space that follows a non-space, which no token of
    byte-level BPE (or of characters) spans. GPT-1's tokenizer takes any cut. Memory stays flat, and the next pieces are
    read and encoded while the caller works.
    """
    if own := getattr(tokenizer, "encode_documents", None):  # GPT-1's
        dtype = ids_dtype(tokenizer)
        for document, ids in own(pieces):
            yield document, ids.astype(dtype)
        return
    encode = _encoder(tokenizer)
    characters = _BATCH_CHARACTERS * max(1, usable_processors() // 8)

    def encode_batch(batch: list[Piece]) -> list[TokenIds]:
        return encode([piece.text for piece in batch])

    with ThreadPoolExecutor(_BATCHES_IN_FLIGHT - 1) as pool:
        for piece, ids in encoded_ahead(pool, encode_batch, batches(pieces, characters), _BATCHES_IN_FLIGHT):
            yield piece.document, ids


def count_unknown(tokenizer: AnyTokenizer, ids: NDArray[Any]) -> int:
    """Return how many ids (tokens,) stand for text that the tokenizer does not know."""
    unknown = unknown_id(tokenizer)
    if unknown is None:
        return 0
    parts = (ids[start : start + _BATCH_CHARACTERS] for start in range(0, len(ids), _BATCH_CHARACTERS))
    return sum(int(np.count_nonzero(part == unknown)) for part in parts)  # a memory map may be larger than memory


_encoders: weakref.WeakKeyDictionary[Any, tuple[int, Encode]] = weakref.WeakKeyDictionary()
_encoders_lock = threading.Lock()


def _encoder(tokenizer: AnyTokenizer) -> Encode:
    """Return the tokenizer's fast path, rebuilt when its size has changed."""
    with _encoders_lock:
        size, encode = _encoders.get(tokenizer, (0, None))
        if encode is None or size != len(tokenizer):
            encode = _fast_path(tokenizer)
            _encoders[tokenizer] = len(tokenizer), encode
        return encode


def _fast_path(tokenizer: Any) -> Encode:
    dtype = ids_dtype(tokenizer)
    if own := getattr(tokenizer, "encode_text", None):  # GPT-1's
        return lambda texts: [own(text).astype(dtype) for text in texts]
    if encode := fast_encoder(tokenizer, dtype):
        return lambda texts: [encode(text) for text in texts]
    backend: Tokenizer = tokenizer.backend_tokenizer
    if not getattr(tokenizer, "encodes_plain_text", False):  # copying GPT-2's takes 0.1 s
        backend = copy.deepcopy(backend)  # so that its other users keep their settings
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True

    def encode_batch(texts: Sequence[str]) -> list[TokenIds]:
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.fromiter(encoding.ids, dtype, len(encoding)) for encoding in encodings]

    return encode_batch
