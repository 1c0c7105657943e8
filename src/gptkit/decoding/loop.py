"""The decoding loop: prefill, then one token a step from the KV cache, for any number of prompts of unequal length."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from gptkit.decoding.engines import Engine, Piece
from gptkit.decoding.sampling import Array, SamplingRules, TokenReport, array_namespace, choose, report_tokens
from gptkit.errors import UsageError
from gptkit.model_files import not_finite

FinishReason = Literal["length", "stop"]
PREFILL_TOKENS = 8192  # per group of prompts, padding included: bounds the memory that activations take


@dataclass(frozen=True)
class Sample:
    """The continuation of prompt number `prompt`: its new tokens without the stop token, and why it ended."""

    prompt: int
    token_ids: list[int]
    finish_reason: FinishReason


class Step(NamedTuple):
    """One new token of one row (None for a stop token); `finish_reason` comes with the row's last step.

    `report` describes the chosen token, even a stop token, if the decoder explains.
    """

    row: int
    token_id: int | None
    finish_reason: FinishReason | None
    report: TokenReport | None = None


@dataclass
class _Row:
    number: int  # of the prompt
    index: int  # of the sample, for its random numbers
    prompt_length: int
    tokens: list[int]  # prompt and continuation
    slot: int = -1  # its row in the engine
    window_start: int = 0  # tokens before it have left the context
    in_cache: int = 0  # how many tokens of the window the engine has cached
    finish_reason: FinishReason | None = None

    @property
    def window(self) -> list[int]:
        return self.tokens[self.window_start :]


@dataclass
class Decoder:
    """Decodes some prompts once: iterate over the steps, then read `samples` and the seconds they took.

    A row's text depends on its prompt, the seed and its entry of `indices` (default 0, 1, ...), not on the other rows:
    random numbers are drawn by (seed, index, position in the whole sequence), and each row's window slides on its own.
    Past the context the window is cropped to its newer half and prefilled again; the first time, `on_slide` is called
    with the number of tokens kept. At most `batch_size` rows (default: `rows_at_once`) are decoded together; the slots
    of finished rows go to the waiting prompts in order. With `explain` n, each step reports its token's probability,
    its rank and the n most likely tokens.

    Raises UsageError for a prompt that is empty, longer than the context or outside the vocabulary, InputError for
    logits that are not finite.
    """

    engine: Engine
    prompt_ids: Sequence[Sequence[int]]
    _: KW_ONLY
    max_new_tokens: int
    rules: SamplingRules = field(default_factory=SamplingRules)
    seed: int = 0
    indices: Sequence[int] | None = None
    stop_ids: Collection[int] = ()
    forbidden_ids: Collection[int] = ()
    on_slide: Callable[[int], None] | None = None
    batch_size: int | None = None
    explain: int = 0
    prefill_seconds: float = field(default=0.0, init=False)
    decode_seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        vocab_size = self.engine.vocab_size
        for ids in self.prompt_ids:
            check_prompt(ids, self.engine.n_positions, vocab_size)
        if len(set(self.forbidden_ids)) == vocab_size:
            raise ValueError("every token is forbidden")
        indices = range(len(self.prompt_ids)) if self.indices is None else self.indices
        self._rows = [
            _Row(number, index, len(ids), list(ids))
            for number, (index, ids) in enumerate(zip(indices, self.prompt_ids, strict=True))
        ]
        self._forbidden = _marked(self.forbidden_ids, vocab_size) if self.forbidden_ids else None

    @property
    def samples(self) -> list[Sample]:
        """The finished samples, in the order of their prompts."""
        return [
            Sample(row.number, row.tokens[row.prompt_length :], row.finish_reason)
            for row in self._rows
            if row.finish_reason is not None
        ]

    def finish(self, row: int, reason: FinishReason = "stop") -> None:
        """End a row between two steps, or before its first; a finished row stays as it is."""
        self._rows[row].finish_reason = self._rows[row].finish_reason or reason

    def __iter__(self) -> Iterator[Step]:
        """Yield the steps: each round is one token for every active row. Iterate only once."""
        longest = max((len(row.tokens) for row in self._rows), default=0) + self.max_new_tokens
        size = min(self.batch_size or rows_at_once(self.engine, longest), max(1, len(self._rows)))
        self.engine.open(size, min(longest, self.engine.n_positions))
        waiting = deque(self._rows)
        active: list[_Row] = []
        free = list(reversed(range(size)))  # slots
        while True:
            free += [row.slot for row in active if row.finish_reason is not None]
            active = [row for row in active if row.finish_reason is None]
            # Refill once a quarter of the slots is free: a prefill for each free slot would stall the other rows.
            if not active or 4 * len(free) >= size:
                while free and waiting:
                    row = waiting.popleft()
                    if row.finish_reason is None:
                        row.slot = free.pop()
                        active.append(row)
            if not active:
                return
            yield from self._step(active)

    def _step(self, rows: list[_Row]) -> list[Step]:
        """Feed the engine what its rows lack, then choose a token for each."""
        began = time.perf_counter()
        self._slide(rows)
        new = [row for row in rows if row.in_cache == 0]
        running = [row for row in rows if row.in_cache > 0]
        logits = [self._forward(group) for group in _groups(new)]
        filled = time.perf_counter()
        compiled = self.engine.compile_seconds
        if running:
            logits.append(self._forward(running))
        steps = self._choose([*new, *running], logits)
        self.prefill_seconds += filled - began
        compiled = self.engine.compile_seconds - compiled
        self.decode_seconds += time.perf_counter() - filled - compiled
        return sorted(steps, key=lambda step: step.row)

    def _slide(self, rows: list[_Row]) -> None:
        """Crop the windows that exceed the context to their newer half, to be prefilled again."""
        kept = max(1, self.engine.n_positions // 2)
        full = [row for row in rows if len(row.window) > self.engine.n_positions]
        for row in full:
            row.window_start = len(row.tokens) - kept
            row.in_cache = 0
        if full and self.on_slide is not None:
            self.on_slide(kept)
            self.on_slide = None

    def _forward(self, rows: list[_Row]) -> Array:
        """Feed the engine the tokens of the rows' windows that are not cached; return logits (rows, vocab)."""
        logits = self.engine.forward([Piece(row.slot, row.in_cache, row.window[row.in_cache :]) for row in rows])
        for row in rows:
            row.in_cache = len(row.window)
        return logits

    def _choose(self, rows: list[_Row], groups: list[Array]) -> list[Step]:
        """Choose each row's next token; `groups` hold the rows' logits in order."""
        xp = array_namespace(groups[0])
        logits = groups[0] if len(groups) == 1 else xp.concat(groups, axis=0)  # (rows, vocab)
        if not bool(xp.all(xp.isfinite(logits))):
            raise not_finite("the model's logits are")

        def on_device(values: Any) -> Array:
            return xp.asarray(np.asarray(values), device=logits.device)

        if self._forbidden is not None:
            self._forbidden = xp.asarray(self._forbidden, device=logits.device)
        penalized = self.rules.repetition_penalty != 1
        with np.errstate(over="ignore"):  # a temperature near 0 sends logits to -inf
            tokens = choose(
                logits,
                self.rules,
                seed=self.seed,
                indices=on_device([row.index for row in rows]),
                positions=on_device([len(row.tokens) for row in rows]),
                forbidden=self._forbidden,
                seen=on_device([_marked(row.tokens, logits.shape[-1]) for row in rows]) if penalized else None,
            )
        chosen = [int(token) for token in tokens.tolist()]
        reports: Sequence[TokenReport | None] = [None] * len(rows)
        if self.explain:
            reports = report_tokens(logits, chosen, self.explain, self._forbidden)
        return [self._accept(row, token, report) for row, token, report in zip(rows, chosen, reports, strict=True)]

    def _accept(self, row: _Row, token: int, report: TokenReport | None) -> Step:
        if token in self.stop_ids:
            row.finish_reason = "stop"
            return Step(row.number, None, "stop", report)
        row.tokens.append(token)
        if len(row.tokens) - row.prompt_length == self.max_new_tokens:
            row.finish_reason = "length"
        return Step(row.number, token, row.finish_reason, report)


def rows_at_once(engine: Engine, longest: int, *, most: int = 64, cache_bytes: int = 2 * 2**30) -> int:
    """Return how many rows of `longest` tokens to decode together, so that their cache fits in `cache_bytes`."""
    row_bytes = engine.cache_bytes(min(longest, engine.n_positions))
    return max(1, min(most, cache_bytes // row_bytes))


def _groups(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Cut the rows into groups of at most PREFILL_TOKENS tokens, each row padded to its group's longest window."""
    group: list[_Row] = []
    width = 0
    for row in rows:
        width = max(width, len(row.window))
        if group and (len(group) + 1) * width > PREFILL_TOKENS:
            yield group
            group, width = [], len(row.window)
        group.append(row)
    if group:
        yield group


def _marked(ids: Collection[int], vocab_size: int) -> Array:
    marks = np.zeros(vocab_size, dtype=np.bool_)
    marks[list(ids)] = True
    return marks


def check_prompt(ids: Sequence[int], n_positions: int, vocab_size: int) -> None:
    """Raise UsageError for a prompt that is empty, longer than the context or outside the vocabulary."""
    if not ids:
        raise UsageError("the prompt has no tokens", where="PROMPT", fix="leave it out for unconditional text")
    if len(ids) > n_positions:
        message = f"the prompt has {len(ids)} tokens, but the model's learned positions end at {n_positions}"
        raise UsageError(message, where="PROMPT", fix=f"shorten it to {n_positions} tokens")
    if not 0 <= min(ids) <= max(ids) < vocab_size:
        message = f"the prompt has token id {max(ids)}, but the model's vocabulary ends at {vocab_size - 1}"
        raise UsageError(message, where="PROMPT", fix="use the tokenizer that the model was trained with")
