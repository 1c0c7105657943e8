"""Sampling rules for the next token: temperature, top-k, top-p, repetition penalty, as pure functions on logits.

Logits are numpy arrays or torch tensors (batch, vocab). The order is OpenAI's (gpt-2, sample.py): temperature, top-k,
then top-p over what top-k kept; forbidden tokens and the repetition penalty come first. Randomness is counter-based:
one number per (seed, index, position, token), so a sample depends on no other sample and on no generator's state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gptkit.options import option

Array = Any  # numpy.ndarray or torch.Tensor
TopPRule = Literal["hf", "openai"]
GROUP = 64  # logits per group; a selection starts from the groups' maxima
BISECTIONS = 8  # leave candidates up to 40 / 2**8 logits below what top-p keeps
LOWEST = -3.4e38  # nearly the lowest finite float32
HIGHEST_DIVISOR = 1e38  # a float32 too: beyond, 0 / inf and -inf / inf would be NaN

# SplitMix64 (Steele, Lea, Flood 2014): increment and multipliers, as int64 because torch cannot multiply uint64.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - 2**64
_MULTIPLIER_2 = 0x94D049BB133111EB - 2**64


@dataclass(frozen=True, kw_only=True)
class SamplingRules:
    """How the next token is chosen; the repetition penalty applies to greedy decoding too."""

    top_k: int = option(0, "Sample from the k most likely tokens; 0, or more than there are, = all.", minimum=0)
    top_p: float = option(1.0, "Sample from the most likely tokens, up to a total probability of p.", maximum=1)
    top_p_rule: TopPRule = option(
        "hf",
        "The token that crosses p: hf keeps it (Holtzman et al.), openai drops it (GPT-2's sample.py).",
        panel="Advanced",
    )
    temperature: float = option(1.0, "Divide the logits by this; 0 = greedy.", minimum=0, maximum=HIGHEST_DIVISOR)
    greedy: bool = option(False, "Always take the most likely token.")
    repetition_penalty: float = option(
        1.0,
        "Above 1, make tokens that already occurred less likely (CTRL paper, section 4.1).",
        minimum=0.01,
        maximum=HIGHEST_DIVISOR,
    )

    @property
    def is_greedy(self) -> bool:
        """Whether choosing needs no random numbers."""
        return self.greedy or self.temperature == 0


class TokenReport(NamedTuple):
    """How the model itself rates a chosen token, before any sampling rule and without the forbidden tokens.

    `rank` is 1 for the most likely token; ties go to the lower id. `alternatives` are the most likely tokens as
    (token id, probability), most likely first; the chosen token may be among them.
    """

    probability: float
    rank: int
    alternatives: list[tuple[int, float]]


def array_namespace(array: Array) -> Any:
    """Return the array API namespace of an array: numpy itself, or array_api_compat's for torch.

    array_api_compat's namespace for numpy imports f2py and numpy's tests: 0.25 s before the first token.
    """
    import numpy as np

    if isinstance(array, np.ndarray):
        return np
    from array_api_compat import torch

    return torch


def forbid(logits: Array, forbidden: Array) -> Array:
    """Set the logits of the tokens marked in `forbidden` (vocab,) to -inf."""
    return array_namespace(logits).where(forbidden, -math.inf, logits)


def penalize(logits: Array, seen: Array, penalty: float) -> Array:
    """Make the tokens marked in `seen` (batch, vocab) less likely, no matter how often they occurred.

    Positive logits are divided by `penalty`, negative ones multiplied by it (CTRL, Keskar et al. 2019, section 4.1).
    """
    xp = array_namespace(logits)
    penalized = xp.clip(xp.where(logits > 0, logits / penalty, logits * penalty), LOWEST, -LOWEST)
    return xp.where(seen, penalized, logits)


def apply_temperature(logits: Array, temperature: float) -> Array:
    """Divide the logits by a positive `temperature`: below 1 sharpens, above 1 flattens the distribution."""
    # Relative to the largest, so that a tiny temperature sends the others to -inf, not all of them to inf.
    shifted = logits - array_namespace(logits).max(logits, axis=-1, keepdims=True)
    return shifted if temperature == 1 else shifted / max(temperature, 1e-30)


def top_k_floor(logits: Array, k: int) -> Array:
    """Return each row's k-th largest logit, (batch, 1); tokens tied with it are kept, as in gpt-2 and transformers.

    With k = 0, or beyond the vocabulary, the floor keeps every token whose logit is finite.
    """
    xp = array_namespace(logits)
    lowest = xp.full((logits.shape[0], 1), LOWEST, dtype=logits.dtype, device=logits.device)
    return xp.maximum(_kth_largest(logits, k), lowest) if 0 < k < logits.shape[-1] else lowest


def top_p_floor(logits: Array, p: float, normalizer: Array) -> Array:
    """Return a logit per row, (batch, 1), below which top-p keeps nothing, so that only the tokens above need sorting.

    Bisects the logits until the tokens below have a probability under 1 - p. `normalizer` is log_sum_exp(logits).
    """
    xp = array_namespace(logits)
    probabilities = xp.exp(logits - normalizer)  # (batch, vocab)
    dropped = 0.99 * (1 - p)  # a little less than 1 - p: sums are rounded
    high = xp.max(logits, axis=-1, keepdims=True)
    low = high - 40  # the probability below is lost in rounding
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        fits = xp.sum(xp.where(logits < middle, probabilities, 0.0), axis=-1, keepdims=True) < dropped
        low, high = xp.where(fits, middle, low), xp.where(fits, high, middle)
    return low


def candidates(logits: Array, floor: Array) -> tuple[Array, Array]:
    """Return the ids, ascending, and the logits of each row's tokens at or above its floor (batch, 1): both (batch, n).

    Drawing random numbers only for these makes top-k fast. n is the largest count of any row; shorter rows are
    padded with token 0 at logit -inf.
    """
    xp = array_namespace(logits)
    batch, vocab = logits.shape
    kept = logits >= floor
    if 2 * int(xp.count_nonzero(kept)) > batch * vocab:  # masking is cheaper than gathering so many
        tokens = xp.arange(vocab, dtype=xp.int64, device=logits.device)
        return xp.broadcast_to(tokens, logits.shape), xp.where(kept, logits, -math.inf)
    (flat,) = xp.nonzero(xp.reshape(kept, (-1,)))
    if batch == 1:
        return flat[None], logits[:, flat]
    rows, tokens = flat // vocab, flat % vocab
    counts = xp.count_nonzero(kept, axis=-1)
    starts = xp.cumulative_sum(counts) - counts
    columns = xp.arange(flat.shape[0], dtype=xp.int64, device=logits.device) - starts[rows]
    shape = (batch, int(xp.max(counts)))
    ids = xp.zeros(shape, dtype=xp.int64, device=logits.device)
    values = xp.full(shape, -math.inf, dtype=logits.dtype, device=logits.device)
    ids[rows, columns] = tokens
    values[rows, columns] = xp.reshape(logits, (-1,))[flat]
    return ids, values


def keep_top_p(logits: Array, p: float, rule: TopPRule = "hf", normalizer: Array | None = None) -> Array:
    """Keep the most likely tokens of each row up to probability p, at least one; ties go to the lower id.

    "hf" keeps the token that crosses p (Holtzman et al. 2020, transformers); "openai" drops it (gpt-2, sample.py).
    `normalizer` (batch, 1) is the log_sum_exp of the complete rows, where `logits` lacks unlikely tokens.
    """
    if p >= 1:
        return logits  # a rounded sum may reach 1 before the last token
    xp = array_namespace(logits)
    order = _descending_order(logits)
    ordered = xp.take_along_axis(logits, order, axis=-1)
    probabilities = xp.exp(ordered - (log_sum_exp(logits) if normalizer is None else normalizer))
    reached = xp.cumulative_sum(probabilities, axis=-1)
    drop = reached - probabilities >= p if rule == "hf" else reached > p
    drop[..., 0] = False
    rows = xp.arange(logits.shape[0], dtype=xp.int64, device=logits.device)[:, None]
    kept = xp.empty_like(logits)
    kept[rows, order] = xp.where(drop, -math.inf, ordered)
    return kept


def log_sum_exp(logits: Array) -> Array:
    """Return log(sum(exp(logits))) of each row, (batch, 1): a logit minus it is a log-probability."""
    xp = array_namespace(logits)
    largest = xp.max(logits, axis=-1, keepdims=True)
    return largest + xp.log(xp.sum(xp.exp(logits - largest), axis=-1, keepdims=True))


def random_uniforms(seed: int, indices: Array, positions: Array, tokens: Array) -> Array:
    """Return a uniform number in (0, 1) per (seed, index, position, token), the same in both libraries on every device.

    `indices` and `positions` are (batch,), `tokens` (n,) or (batch, n); all int64. The result is float32 (batch, n).
    Each (seed, index, position) is hashed to the start of a SplitMix64 stream, which has one output per token id.
    """
    xp = array_namespace(tokens)
    key = _mix(xp.full_like(indices, seed) + _STEP)
    key = _mix(key + (indices + 1) * _STEP)
    key = _mix(key + (positions + 1) * _STEP)
    bits = _mix(key[:, None] + (tokens + 1) * _STEP) & (2**63 - 1)  # (batch, n)
    uniforms = xp.where(bits > 0, xp.astype(bits, xp.float32) * 2.0**-63, 2.0**-63)
    return xp.where(uniforms < 1, uniforms, 1 - 2.0**-24)


def _mix(state: Array) -> Array:
    state = (state ^ _shift_right(state, 30)) * _MULTIPLIER_1
    state = (state ^ _shift_right(state, 27)) * _MULTIPLIER_2
    return state ^ _shift_right(state, 31)


def _shift_right(state: Array, bits: int) -> Array:
    return (state >> bits) & ((1 << (64 - bits)) - 1)  # int64 shifts extend the sign; the mask clears it


def sample(logits: Array, uniforms: Array) -> Array:
    """Draw one column of each row, (batch,), from softmax(logits) by the Gumbel-max trick.

    With an inverted cumulative distribution, a last-bit difference in one likely token would move the boundaries of all
    later ones. Here it matters only where the two leaders nearly tie, so rounding hardly ever changes a text.
    """
    xp = array_namespace(logits)
    arrivals = -xp.log1p(-uniforms)  # exponential; floats are finest near 0, where the winners are
    return xp.argmax(logits - xp.log(arrivals), axis=-1)


def choose(
    logits: Array,
    rules: SamplingRules,
    *,
    seed: int,
    indices: Array,
    positions: Array,
    forbidden: Array | None = None,
    seen: Array | None = None,
) -> Array:
    """Return the next token id of each row, (batch,), from logits (batch, vocab) of any float type.

    `forbidden` (vocab,) marks tokens that are never chosen. `seen` (batch, vocab) marks those of the row's prompt and
    continuation, for the repetition penalty.
    """
    xp = array_namespace(logits)
    logits = xp.astype(logits, xp.float32, copy=False)
    if seen is not None and rules.repetition_penalty != 1:
        logits = penalize(logits, seen, rules.repetition_penalty)
    if forbidden is not None:  # after the penalty, which keeps every logit finite
        logits = forbid(logits, forbidden)
    if rules.is_greedy:
        return xp.argmax(logits, axis=-1)
    # Top-k first: temperature does not change the order, and fewer logits are left to divide.
    tokens, logits = candidates(logits, top_k_floor(logits, rules.top_k))
    logits = apply_temperature(logits, rules.temperature)
    if rules.top_p < 1:
        normalizer = log_sum_exp(logits)
        columns, logits = candidates(logits, top_p_floor(logits, rules.top_p, normalizer))
        tokens = xp.take_along_axis(tokens, columns, axis=-1)
        logits = keep_top_p(logits, rules.top_p, rules.top_p_rule, normalizer)
    columns = sample(logits, random_uniforms(seed, indices, positions, tokens))
    return xp.take_along_axis(tokens, columns[:, None], axis=-1)[:, 0]


def report_tokens(
    logits: Array, chosen: Sequence[int], count: int, forbidden: Array | None = None
) -> list[TokenReport]:
    """Return a report with `count` alternatives for each row of `logits` (batch, vocab) and its chosen token."""
    xp = array_namespace(logits)
    logits = xp.astype(logits, xp.float32, copy=False)
    logits = logits if forbidden is None else forbid(logits, forbidden)
    normalizer = log_sum_exp(logits)  # (batch, 1)
    reports = []
    for row, norm, token in zip(logits, normalizer, chosen, strict=True):
        before = (row > row[token]) | ((row == row[token]) & (xp.arange(row.shape[0], device=row.device) < token))
        best = _descending_order(row)[:count]
        probabilities = xp.exp(row[best] - norm).tolist()
        alternatives = [pair for pair in zip(best.tolist(), probabilities, strict=True) if pair[1] > 0]
        reports.append(TokenReport(float(xp.exp(row[token] - norm[0])), 1 + int(xp.sum(before)), alternatives))
    return reports


def _descending_order(array: Array) -> Array:
    """Return the indices that sort each row in descending order; equal entries keep their order."""
    xp = array_namespace(array)
    if hasattr(array, "topk"):  # torch's
        return xp.argsort(array, axis=-1, descending=True, stable=True)
    return xp.argsort(-array, axis=-1, stable=True)


def _kth_largest(logits: Array, k: int) -> Array:
    """Return each row's k-th largest logit, (batch, 1); the array API has no selection, so ask each library."""
    if hasattr(logits, "topk"):
        return logits.topk(k).values[..., -1:]
    import numpy as np

    batch, vocab = logits.shape
    groups = vocab // GROUP
    if groups < 2 * k:
        return np.partition(logits, vocab - k, axis=-1)[:, vocab - k, None]
    # The k-th largest of the groups' maxima bounds it from below: a third of the time of selecting from all logits.
    maxima = logits[:, : groups * GROUP].reshape(batch, GROUP, groups).max(axis=1)  # (batch, groups)
    bounds = np.partition(maxima, groups - k, axis=-1)[:, groups - k]
    return np.array([[np.partition(row[row >= bound], -k)[-k]] for row, bound in zip(logits, bounds, strict=True)])
