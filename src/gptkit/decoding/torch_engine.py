"""Logits from a torch model, with one preallocated KV cache for rows of unequal length."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from gptkit.decoding.engines import Engine, Piece
from gptkit.decoding.loop import Decoder, Sample
from gptkit.decoding.quantization import QuantisedLinear
from gptkit.decoding.recurrent_engine import RecurrentEngine
from gptkit.model.modeling_lstm import LSTMForCausalLM


class _Target:
    """Where the current forward pass writes its keys and values, and how many it reads."""

    slots: Tensor  # (batch, 1)
    positions: Tensor  # (batch, query)
    window: int  # keys to read from each of the first `batch` slots; 0 = only those of the pass itself


class _Layer(CacheLayerMixin):
    """A layer's keys and values; the last position of each slot is scratch, for padding that is never read."""

    is_sliding = False

    def __init__(self, shape: tuple[int, int, int, int], like: Tensor, target: _Target) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stored = like.new_zeros((2, *shape))  # (keys and values, slot, head, position, head_dim)
        self.is_initialized = True
        self.target = target

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: __init__ did it."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Store (batch, head, query, head_dim); return the keys and values to read, (batch, head, key, head_dim)."""
        slots, positions, window = self.target.slots, self.target.positions, self.target.window
        keys, values = self.stored
        keys[slots, :, positions] = key_states.transpose(1, 2)
        values[slots, :, positions] = value_states.transpose(1, 2)
        if not window:
            return key_states, value_states
        batch = len(key_states)
        return keys[:batch, :, :window], values[:batch, :, :window]

    def get_seq_length(self) -> int:
        return self.target.window

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.target.window or query_length, 0

    def get_max_length(self) -> int:
        return int(self.stored.shape[3]) - 1


class TorchEngine:
    """Runs a causal language model with transformers' modules (`transformer`, `lm_head`, learned positions).

    The model must be in eval mode. Every row starts at position 0 of its slot, so a new row is prefilled without
    touching the others. A step reads only the filled part of the cache, and needs no mask if all rows have the same
    length. With `static` it runs over all rows and the whole cache, which keeps all shapes constant, as CUDA graphs
    require; `compile` compiles that step.
    """

    def __init__(self, model: PreTrainedModel, *, static: bool = False, compile: bool = False) -> None:
        config = model.config
        self.n_positions: int = config.n_positions
        self.vocab_size: int = config.vocab_size
        self.compile_seconds = 0.0
        self._model: Any = model
        self._static = static or compile
        # A row's text must be the same in any batch. Quantized products ensure that, but padding changes the bits of
        # bfloat16 attention: so only pieces of equal length go together.
        is_quantized = any(isinstance(module, QuantisedLinear) for module in model.modules())
        self._equal_lengths = not self._static and is_quantized and model.dtype == torch.bfloat16
        self._eager: Callable[..., Tensor] = self._hidden
        self._step = self._eager
        self._compiled: set[tuple[int, int]] = set()  # the (rows, length) that the step was compiled for
        if compile:
            self._step = torch.compile(self._eager, mode="reduce-overhead", dynamic=False)
        self._target = _Target()
        self._layers: list[_Layer] = []
        self._cache: Cache | None = None
        self._slots: list[int] = []  # the slot of each row
        self._length = 0

    def open(self, rows: int, length: int) -> None:
        """Make room for `rows` empty rows of up to `length` tokens; ValueError beyond n_positions."""
        if length > self.n_positions:
            raise ValueError(f"rows of {length} tokens, but the model's positions end at {self.n_positions}")
        config = self._model.config
        shape = (rows, config.n_head, length + 1, config.n_embd // config.n_head)
        like = self._model.transformer.wpe.weight.detach()
        self._layers = [_Layer(shape, like, self._target) for _ in range(config.n_layer)]
        if self._step is not self._eager:
            for layer in self._layers:
                torch._dynamo.mark_static_address(layer.stored)
        self._cache = Cache(layers=[*self._layers])
        self._slots = list(range(rows))
        self._length = length

    def cache_bytes(self, length: int) -> int:
        """Return the bytes of the cache of a row of up to `length` tokens, its scratch position included."""
        config = self._model.config
        return int(2 * config.n_layer * config.n_embd * (length + 1) * self._model.dtype.itemsize)

    @torch.inference_mode()
    def forward(self, pieces: Sequence[Piece]) -> Tensor:
        """Append the pieces; return float32 logits (wanted, vocab_size) after the tokens that want them."""
        if any(piece.start + len(piece.token_ids) > self._length for piece in pieces):
            raise ValueError(f"a row grows beyond the {self._length} tokens that it was opened for")
        if self._static and all(len(piece.token_ids) == 1 for piece in pieces):
            return self._step_all(pieces)
        if not self._equal_lengths:
            return self._forward_together(pieces)
        groups: dict[tuple[int, int], list[int]] = {}  # (start, length) -> indices of the pieces
        for number, piece in enumerate(pieces):
            groups.setdefault((piece.start, len(piece.token_ids)), []).append(number)
        logits = torch.cat([self._forward_together([pieces[number] for number in group]) for group in groups.values()])
        return self._in_order(logits, pieces, [number for group in groups.values() for number in group])

    def _forward_together(self, pieces: Sequence[Piece]) -> Tensor:
        first = all(piece.start == 0 for piece in pieces)  # all begin a row
        if not first:
            self._bring_to_front([piece.row for piece in pieces])
        order = sorted(range(len(pieces)), key=lambda number: self._slots[pieces[number].row])
        given, pieces = pieces, [pieces[number] for number in order]
        width = max(len(piece.token_ids) for piece in pieces)
        ids = self._tensor([[*piece.token_ids, *[0] * (width - len(piece.token_ids))] for piece in pieces])
        lengths = self._tensor([len(piece.token_ids) for piece in pieces])
        starts = self._tensor([piece.start for piece in pieces])
        offsets = torch.arange(width, device=ids.device)
        positions = starts[:, None] + offsets  # (batch, query)
        target = self._target
        target.slots = self._tensor([[self._slots[piece.row]] for piece in pieces])
        target.positions = torch.where(offsets < lengths[:, None], positions, self._length)  # padding goes to scratch
        target.window = 0 if first else max(piece.start + len(piece.token_ids) for piece in pieces)
        equal = width == 1 and len({piece.start for piece in pieces}) == 1
        mask = None if first or equal else self._mask(positions)  # causality hides padding on the right
        hidden = self._hidden(ids, positions.clamp(max=self.n_positions - 1), mask)
        ends = [number * width + len(piece.token_ids) for number, piece in enumerate(pieces)]
        places = [place for end, piece in zip(ends, pieces, strict=True) for place in range(end - piece.wanted, end)]
        return self._in_order(self._logits(hidden.flatten(0, 1)[self._tensor(places)]), given, order)

    def _in_order(self, logits: Tensor, pieces: Sequence[Piece], order: Sequence[int]) -> Tensor:
        """Return logits (wanted, vocab_size) in the order of the pieces; they are in that of the pieces' numbers."""
        numbers = [number for number in order for _ in range(pieces[number].wanted)]
        return logits[self._tensor(numbers).argsort(stable=True)]

    def _step_all(self, pieces: Sequence[Piece]) -> Tensor:
        """Run one token of every row of the cache; rows without a piece write to the scratch position."""
        rows = len(self._slots)
        ids, positions = [0] * rows, [self._length] * rows
        for piece in pieces:
            slot = self._slots[piece.row]
            ids[slot], positions[slot] = piece.token_ids[0], piece.start
        target = self._target
        target.slots = torch.arange(rows, device=self._model.device)[:, None]
        target.positions = self._tensor(positions)[:, None]
        target.window = self._length
        began = time.perf_counter()
        arguments = self._tensor(ids)[:, None], target.positions.clamp(max=self.n_positions - 1)
        hidden = self._step(*arguments, self._mask(target.positions))
        shape = rows, self._length
        if self._step is not self._eager and shape not in self._compiled:
            self._compiled.add(shape)
            self.compile_seconds += time.perf_counter() - began
        return self._logits(hidden[self._tensor([self._slots[piece.row] for piece in pieces]), 0])

    def _hidden(self, ids: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Return the hidden states (batch, query, n_embd) of ids and positions (batch, query)."""
        output = self._model.transformer(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=self._cache, use_cache=True
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._model.lm_head(hidden)
        return logits.float()

    def _mask(self, positions: Tensor) -> Tensor:
        """Return the additive mask (batch, 1, query, key): a query attends to keys up to its own position."""
        keys = torch.arange(self._target.window, device=positions.device)
        hidden = keys > positions[:, None, :, None]
        zeros = torch.zeros(hidden.shape, dtype=self._model.dtype, device=hidden.device)
        return zeros.masked_fill(hidden, torch.finfo(zeros.dtype).min)

    def _bring_to_front(self, rows: list[int]) -> None:
        """Move the rows to the first slots, so that a step reads them as one view; usually they are there already."""
        wanted = set(rows)
        outside = [row for row in rows if self._slots[row] >= len(rows)]
        in_the_way = [row for row, slot in enumerate(self._slots) if slot < len(rows) and row not in wanted]
        if not outside:
            return
        swapped = [*outside, *in_the_way]
        before = [self._slots[row] for row in swapped]
        after = before[len(outside) :] + before[: len(outside)]
        source, destination = self._tensor(before), self._tensor(after)
        for layer in self._layers:
            layer.stored[:, destination] = layer.stored[:, source]
        for row, slot in zip(swapped, after, strict=True):
            self._slots[row] = slot

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, device=self._model.device)


def engine_of(model: PreTrainedModel, *, compile: bool = False) -> Engine:
    """Return the engine that runs a model in torch; only that of a Transformer can be compiled."""
    return RecurrentEngine(model) if isinstance(model, LSTMForCausalLM) else TorchEngine(model, compile=compile)


def generate(model: PreTrainedModel, prompt_ids: Sequence[Sequence[int]], **arguments: Any) -> list[Sample]:
    """Return one sample per prompt, in order; `arguments` are `Decoder`'s. The model's training mode is restored."""
    decoder = Decoder(engine_of(model), prompt_ids, **arguments)
    training = model.training
    model.eval()
    try:
        for _ in decoder:
            pass
    finally:
        model.train(training)
    return decoder.samples
