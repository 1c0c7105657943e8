"""Logits from an LSTM, which keeps a state of each row instead of a cache of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gptkit.decoding.engines import Piece
from gptkit.model.modeling_lstm import LSTMForCausalLM, State


class RecurrentEngine:
    """Runs an LSTM in eval mode; a piece begins its row anew, or continues it after its last token.

    Pieces of unequal length run together up to the end of the shortest, so that no state ever reads padding.
    """

    compile_seconds = 0.0

    def __init__(self, model: LSTMForCausalLM) -> None:
        self.n_positions: int = model.config.n_positions
        self.vocab_size: int = model.config.vocab_size
        self._model: Any = model
        self._states = torch.empty(0)  # h and c of each layer, (layer, 2, row, units)
        self._lengths: list[int] = []  # of each row, in tokens
        self._limit = 0

    def open(self, rows: int, length: int) -> None:
        """Make room for `rows` empty rows of up to `length` tokens; ValueError beyond n_positions."""
        if length > self.n_positions:
            raise ValueError(f"rows of {length} tokens, but the model's positions end at {self.n_positions}")
        config, like = self._model.config, self._model.lm_head.weight
        self._states = like.new_zeros((config.n_layer, 2, rows, config.inner_width))
        self._lengths, self._limit = [0] * rows, length

    def cache_bytes(self, length: int) -> int:
        """Return the bytes of a row's states, whatever its length."""
        config = self._model.config
        return int(2 * config.n_layer * config.inner_width * self._model.dtype.itemsize)

    @torch.inference_mode()
    def forward(self, pieces: Sequence[Piece]) -> Tensor:
        """Append the pieces; return float32 logits (wanted, vocab_size) after the tokens that want them.

        Raises ValueError for a piece that starts elsewhere than at 0 or at its row's end, or ends beyond the limit.
        """
        for row, start, token_ids, _ in pieces:
            if start not in (0, self._lengths[row]) or start + len(token_ids) > self._limit:
                place = f"{start} to {start + len(token_ids)}"
                raise ValueError(f"tokens {place} of a row of {self._lengths[row]}, opened for {self._limit}")
            self._lengths[row] = start + len(token_ids)
        self._states[:, :, self._tensor([piece.row for piece in pieces if piece.start == 0])] = 0
        parts: list[list[Tensor]] = [[] for _ in pieces]
        first = 0
        for end in sorted({len(piece.token_ids) for piece in pieces}):
            running = [number for number, piece in enumerate(pieces) if len(piece.token_ids) >= end]
            ids = [pieces[number].token_ids[first:end] for number in running]
            states = self._advance([pieces[number].row for number in running], ids)
            for number, hidden in zip(running, states, strict=True):
                parts[number].append(hidden)
            first = end
        ends = zip(parts, pieces, strict=True)
        wanted = [torch.cat(part)[len(piece.token_ids) - piece.wanted :] for part, piece in ends]
        logits: Tensor = self._model.lm_head(torch.cat(wanted))
        return logits.float()

    def _advance(self, rows: Sequence[int], token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Return the hidden states (row, token, n_embd) of equally many next tokens of some rows."""
        index = self._tensor(rows)
        states: list[State] = [(hidden, cell) for hidden, cell in self._states[:, :, index]]
        hidden: Tensor = self._model.transformer(self._tensor(token_ids), states=states).last_hidden_state
        self._states[:, :, index] = torch.stack([torch.stack(state) for state in states])
        return hidden

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._model.device)
