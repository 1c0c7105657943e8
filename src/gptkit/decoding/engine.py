"""What computes logits: the interface between decoding and a model, whichever library runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from gptkit.decoding.arrays import Array


class Piece(NamedTuple):
    """Tokens that follow one another in one row of the cache."""

    row: int
    start: int  # position of the first token; what the row's cache held from there on is overwritten
    token_ids: Sequence[int]  # at least one


class Engine(Protocol):
    """A language model with a cache of keys and values for several rows, each as long as it is filled."""

    n_positions: int
    vocab_size: int
    cache_bytes: int  # that the keys and values of one token take, over all layers
    compile_seconds: float  # 0 when nothing was compiled or a cache had it

    def open(self, rows: int, length: int) -> None:
        """Make room for `rows` empty rows of up to `length` tokens each (at most n_positions)."""

    def forward(self, pieces: Sequence[Piece]) -> Array:
        """Append each piece to its row; return float32 logits (len(pieces), vocab_size) after each one's last token.

        A numpy array, or a torch tensor on the engine's device. At most one piece a row; rows that no piece names keep
        what they hold.
        """
