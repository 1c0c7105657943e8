"""Decoding with a cache: prefill once, then one token a step, for a batch of prompts of unequal length."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from gptkit.errors import InputError, UsageError
from gptkit.generation.sampling import SamplingRules, TopPRule, choose

FinishReason = Literal["length", "stop"]


@dataclass(frozen=True)
class Sample:
    """The continuation of prompt number `prompt`: its new tokens without the stop token, and why it ended."""

    prompt: int
    token_ids: list[int]
    finish_reason: FinishReason


class Step(NamedTuple):
    """One token of one row (None where a stop id ended it); `finish_reason` comes with the row's last step."""

    row: int
    token_id: int | None
    finish_reason: FinishReason | None


@dataclass
class _Row:
    number: int  # of the prompt
    index: int  # of the sample, for its random numbers
    prompt_length: int
    tokens: list[int]  # prompt and continuation
    window_start: int = 0  # tokens before it have left the context
    finish_reason: FinishReason | None = None

    @property
    def window(self) -> list[int]:
        return self.tokens[self.window_start :]


class Decoder:
    """Decodes a batch once: iterate over its steps, then read `samples` and the seconds they took.

    `model` is a causal language model in the form of transformers, in eval mode, with learned positions
    (`config.n_positions`). A row's text depends on its prompt, the seed and its entry of `indices` (0, 1, ... unless
    given), not on the rest of the batch: random numbers are drawn by (seed, index, position in the whole sequence), and
    each row's window slides by its own length. Past the context the window is cropped to its newer half and prefilled
    again; `on_slide` is told once, with the tokens kept. At most `batch_size` rows are decoded together, unless given
    as many as `rows_at_once` finds memory for.

    Raises UsageError for a prompt that is empty, longer than the context or outside the vocabulary, InputError for a
    model whose logits are not finite.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompt_ids: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        rules: SamplingRules,
        seed: int = 0,
        indices: Sequence[int] | None = None,
        stop_ids: Collection[int] = (),
        forbidden_ids: Collection[int] = (),
        on_slide: Callable[[int], None] | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.prefill_seconds = 0.0
        self.decode_seconds = 0.0
        self._model = model
        self._n_positions: int = model.config.n_positions
        for ids in prompt_ids:
            _check_prompt(ids, self._n_positions, model.config.vocab_size)
        indices = range(len(prompt_ids)) if indices is None else indices
        self._rows = [
            _Row(number, index, len(ids), list(ids))
            for number, (index, ids) in enumerate(zip(indices, prompt_ids, strict=True))
        ]
        self._max_new_tokens = max_new_tokens
        self._rules = rules
        self._seed = seed
        self._stop_ids = frozenset(stop_ids)
        self._forbidden = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=model.device)
        self._forbidden[sorted(forbidden_ids)] = True
        if bool(self._forbidden.all()):
            raise ValueError("every token is forbidden")
        self._on_slide = on_slide
        longest = max((len(row.tokens) for row in self._rows), default=0) + max_new_tokens
        self._batch_size = batch_size or rows_at_once(model, longest)
        self._past: Any = None  # the model's cache, filled for every live row
        self._mask: Tensor | None = None  # (batch, cached tokens), only where rows are padded

    @property
    def samples(self) -> list[Sample]:
        """The finished samples, in the order of their prompts."""
        return [
            Sample(row.number, row.tokens[row.prompt_length :], row.finish_reason)
            for row in self._rows
            if row.finish_reason is not None
        ]

    @property
    def tokens_per_second(self) -> float:
        """All samples' new tokens over the seconds of decoding."""
        return sum(len(sample.token_ids) for sample in self.samples) / max(self.decode_seconds, 1e-9)

    def __iter__(self) -> Iterator[Step]:
        """Yield the steps, token after token over the rows that are decoded together; may be iterated once."""
        for first in range(0, len(self._rows), self._batch_size):
            yield from self._decode(self._rows[first : first + self._batch_size])

    def _decode(self, live: list[_Row]) -> Iterator[Step]:
        began = time.perf_counter()
        logits = self._prefill(live)
        if not bool(logits.isfinite().all()):
            raise InputError(
                "the model's logits are not finite",
                where="--model",
                fix="its weights are damaged or its training diverged; take another",
            )
        self.prefill_seconds += time.perf_counter() - began
        while live:
            began = time.perf_counter()
            steps = [self._accept(row, token) for row, token in zip(live, self._choose(logits, live), strict=True)]
            going_on = [place for place, row in enumerate(live) if row.finish_reason is None]
            if going_on:
                logits, live = self._advance(live, going_on)
            else:
                live = []
            self.decode_seconds += time.perf_counter() - began
            yield from steps

    def _choose(self, logits: Tensor, live: list[_Row]) -> list[int]:
        indices = torch.tensor([row.index for row in live], device=logits.device)
        positions = torch.tensor([len(row.tokens) for row in live], device=logits.device)
        chosen = choose(
            logits, self._rules, seed=self._seed, indices=indices, positions=positions, forbidden=self._forbidden
        )
        return [int(token) for token in chosen.tolist()]

    def _accept(self, row: _Row, token: int) -> Step:
        if token in self._stop_ids:
            row.finish_reason = "stop"
            return Step(row.number, None, "stop")
        row.tokens.append(token)
        if len(row.tokens) - row.prompt_length == self._max_new_tokens:
            row.finish_reason = "length"
        return Step(row.number, token, row.finish_reason)

    def _advance(self, live: list[_Row], going_on: list[int]) -> tuple[Tensor, list[_Row]]:
        """Return the next logits and the rows they belong to: those of `live` at the places `going_on`."""
        if len(going_on) < len(live):
            self._keep_rows(going_on)
            live = [live[place] for place in going_on]
        full = [row for row in live if len(row.tokens) - row.window_start > self._n_positions]
        if not full:
            return self._extend(live), live
        kept = max(1, self._n_positions // 2)
        for row in full:
            row.window_start = len(row.tokens) - kept
        if self._on_slide is not None:
            self._on_slide(kept)
            self._on_slide = None
        return self._prefill(live), live

    def _keep_rows(self, places: list[int]) -> None:
        kept = torch.tensor(places, device=self._model.device)
        self._past.batch_select_indices(kept)
        if self._mask is not None:
            self._mask = self._mask[kept]

    def _prefill(self, live: list[_Row]) -> Tensor:
        """Fill the cache from the rows' windows, padded on the left to end together; return logits (batch, vocab)."""
        width = max(len(row.window) for row in live)
        pads = torch.tensor([width - len(row.window) for row in live], device=self._model.device)
        padded = [[0] * (width - len(row.window)) + row.window for row in live]
        input_ids = torch.tensor(padded, device=self._model.device)  # (batch, width)
        self._past = None
        self._mask = None
        if bool(pads.any()):
            self._mask = (torch.arange(width, device=pads.device) >= pads[:, None]).long()
        return self._forward(input_ids)

    def _extend(self, live: list[_Row]) -> Tensor:
        """Add the rows' newest tokens to the cache; return logits (batch, vocab)."""
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(live), 1)], dim=1)
        return self._forward(torch.tensor([[row.tokens[-1]] for row in live], device=self._model.device))

    @torch.inference_mode()
    def _forward(self, input_ids: Tensor) -> Tensor:
        padding = {}
        if self._mask is not None:
            positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)  # pads get 0, which no one reads
            padding = {"attention_mask": self._mask, "position_ids": positions[:, -input_ids.shape[1] :]}
        output = self._model(
            input_ids=input_ids, past_key_values=self._past, use_cache=True, logits_to_keep=1, **padding
        )
        self._past = output.past_key_values
        logits: Tensor = output.logits[:, -1]  # (batch, vocab)
        return logits


def generate(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    top_p_rule: TopPRule = "hf",
    seed: int = 0,
    indices: Sequence[int] | None = None,
    stop_ids: Collection[int] = (),
    forbidden_ids: Collection[int] = (),
    on_slide: Callable[[int], None] | None = None,
) -> list[Sample]:
    """Return one sample a prompt, in order; see `Decoder`. The model's training mode is left as it was."""
    rules = SamplingRules(temperature=temperature, top_k=top_k, top_p=top_p, top_p_rule=top_p_rule)
    decoder = Decoder(
        model,
        prompt_ids,
        max_new_tokens=max_new_tokens,
        rules=rules,
        seed=seed,
        indices=indices,
        stop_ids=stop_ids,
        forbidden_ids=forbidden_ids,
        on_slide=on_slide,
    )
    training = model.training
    model.eval()
    try:
        for _ in decoder:
            pass
    finally:
        model.train(training)
    return decoder.samples


def rows_at_once(model: PreTrainedModel, longest: int, *, most: int = 64, cache_bytes: int = 2 * 2**30) -> int:
    """Return how many rows of `longest` tokens to decode together, so that their cache fits in `cache_bytes`."""
    config = model.config
    length = min(longest, config.n_positions)
    row_bytes: int = 2 * config.n_layer * config.n_embd * length * model.dtype.itemsize  # keys and values
    return max(1, min(most, cache_bytes // row_bytes))


def _check_prompt(ids: Sequence[int], n_positions: int, vocab_size: int) -> None:
    if not ids:
        raise UsageError("the prompt holds no token", where="PROMPT", fix="leave it out for unconditional text")
    if len(ids) > n_positions:
        raise UsageError(
            f"the prompt has {len(ids)} tokens, the model's learned positions end at {n_positions}",
            where="PROMPT",
            fix=f"shorten it to {n_positions} tokens",
        )
    if not 0 <= min(ids) <= max(ids) < vocab_size:
        raise UsageError(
            f"the prompt has token id {max(ids)}, the model's vocabulary ends at {vocab_size - 1}",
            where="PROMPT",
            fix="use the tokenizer that the model was trained with",
        )
