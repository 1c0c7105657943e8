"""Two tokenizers side by side on one text."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from gptkit.text.pieces import Piece
from gptkit.text.tokenizers.encoding import encode_documents, encode_pieces

_CONTEXT = 8  # tokens shown before and after the first difference


@dataclass(frozen=True)
class Measured:
    """What one tokenizer makes of the text. Speed counts UTF-8 bytes and leaves set-up out."""

    entries: int
    tokens: int
    tokens_per_byte: float
    tokens_per_word: float
    megabytes_per_second: float


@dataclass(frozen=True)
class Difference:
    """The first token, of all from 0, where the ids part, and the text around it as each tokenizer decodes it."""

    token: int
    source: str
    first_text: str
    second_text: str


@dataclass(frozen=True)
class Comparison:
    """Words are what white space separates; entries are shared that decode to the same text, outer spaces aside."""

    text_bytes: int
    text_words: int
    first: Measured
    second: Measured
    shared_entries: int
    same_ids: bool
    difference: Difference | None


def take(pieces: Iterable[Piece], size: int) -> list[Piece]:
    """Return the first pieces that together have at least `size` UTF-8 bytes, or all."""
    taken, have = [], 0
    for piece in pieces:
        taken.append(piece)
        have += len(piece.text.encode())
        if have >= size:
            break
    return taken


def compare(first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase, pieces: Sequence[Piece]) -> Comparison:
    """Encode `pieces` with both tokenizers and compare what comes out."""
    size = sum(len(piece.text.encode()) for piece in pieces)
    words = sum(len(piece.text.split()) for piece in pieces)
    encoded = _encode(first, pieces), _encode(second, pieces)
    first_measured, second_measured = (
        Measured(
            entries=len(tokenizer),
            tokens=len(encoding.ids),
            tokens_per_byte=len(encoding.ids) / max(1, size),
            tokens_per_word=len(encoding.ids) / max(1, words),
            megabytes_per_second=size / 1e6 / encoding.seconds,
        )
        for tokenizer, encoding in zip((first, second), encoded, strict=True)
    )
    difference = _first_difference(first, second, *encoded, pieces)
    return Comparison(
        text_bytes=size,
        text_words=words,
        first=first_measured,
        second=second_measured,
        shared_entries=len(_entry_texts(first) & _entry_texts(second)),
        same_ids=difference is None,
        difference=difference,
    )


@dataclass(frozen=True)
class _Encoded:
    ids: NDArray[Any]  # (tokens,)
    documents: NDArray[np.int64]  # (tokens,) the document of each
    seconds: float


def _encode(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece]) -> _Encoded:
    encode_pieces(tokenizer, [""])  # sets the fast path up
    start = time.perf_counter()
    found = list(encode_documents(tokenizer, pieces))
    seconds = time.perf_counter() - start
    ids = np.concatenate([np.empty(0, np.uint16), *(ids for _, ids in found)])
    documents = np.repeat([document for document, _ in found], [len(ids) for _, ids in found])
    return _Encoded(ids, documents, seconds)


def _first_difference(
    first: PreTrainedTokenizerBase,
    second: PreTrainedTokenizerBase,
    first_encoded: _Encoded,
    second_encoded: _Encoded,
    pieces: Sequence[Piece],
) -> Difference | None:
    both = min(len(first_encoded.ids), len(second_encoded.ids))
    differs = first_encoded.ids[:both] != second_encoded.ids[:both]
    if not differs.any() and len(first_encoded.ids) == len(second_encoded.ids):
        return None
    token = int(differs.argmax()) if differs.any() else both
    longer = max(first_encoded, second_encoded, key=lambda encoded: len(encoded.ids))
    document = longer.documents[token]
    around = slice(max(0, token - _CONTEXT), token + _CONTEXT)
    return Difference(
        token=token,
        source=next(piece.source for piece in pieces if piece.document == document),
        first_text=str(first.decode(first_encoded.ids[around].tolist())),
        second_text=str(second.decode(second_encoded.ids[around].tolist())),
    )


def _entry_texts(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Return the text of each entry; one that is no whole character stands for itself."""
    texts = set()
    for entry, id in tokenizer.get_vocab().items():
        text = str(tokenizer.decode([id]))
        texts.add(entry if "\ufffd" in text else text.strip(" "))
    return texts
