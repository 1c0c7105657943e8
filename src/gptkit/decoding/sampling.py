"""The rules that choose the next token: pure functions on logits (batch, vocab), numpy arrays and torch tensors alike.

The order is that of OpenAI (gpt-2, sample.py): temperature, then top-k, then top-p over what top-k left; before them
stand the forbidden tokens and the repetition penalty. Randomness is counter-based: a number per (seed, index, position,
token), so a sample's text depends on no other sample and on no generator's state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gptkit.options import option

Array = Any  # numpy.ndarray or torch.Tensor
TopPRule = Literal["hf", "openai"]
GROUP = 64  # logits of which one maximum is taken before selecting
BISECTIONS = 8  # leave candidates up to 40 / 2**8 logits below what top-p keeps

# SplitMix64 (Steele, Lea, Flood 2014): its step and its two multipliers, as int64 because torch has no uint64 product.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - 2**64
_MULTIPLIER_2 = 0x94D049BB133111EB - 2**64


@dataclass(frozen=True, kw_only=True)
class SamplingRules:
    """How the next token is chosen; a repetition penalty is applied to greedy choices too."""

    top_k: int = option(0, "Sample from the k most likely tokens; 0 = all.", minimum=0)
    top_p: float = option(1.0, "Sample from the most likely tokens that together reach probability p.", maximum=1)
    top_p_rule: TopPRule = option(
        "hf",
        "The token that crosses p: hf keeps it (Holtzman et al.), openai drops it (GPT-2's sample.py).",
        panel="Advanced",
    )
    temperature: float = option(1.0, "Divide the logits by this; 0 = greedy.", minimum=0)
    greedy: bool = option(False, "Always take the most likely token.")
    repetition_penalty: float = option(
        1.0, "Above 1, tokens that already occurred become less likely (CTRL paper, 4.1).", minimum=0.01
    )

    @property
    def is_greedy(self) -> bool:
        """Whether no random number is needed."""
        return self.greedy or self.temperature == 0


class TokenReport(NamedTuple):
    """A chosen token in the model's own distribution, before any rule; forbidden tokens are left out of it.

    `rank` is 1 for the most likely; of tied tokens the lower id comes first. `alternatives` are the most likely tokens,
    the chosen one included where it is among them, as (token id, probability), in order of probability.
    """

    probability: float
    rank: int
    alternatives: list[tuple[int, float]]


def array_namespace(array: Array) -> Any:
    """Return the array standard's functions for an array: numpy's own, or torch's by array_api_compat.

    Not array_api_compat's for numpy, which import f2py and numpy's tests: a quarter of a second before the first token.
    """
    import numpy as np

    if isinstance(array, np.ndarray):
        return np
    from array_api_compat import torch

    return torch


def forbid(logits: Array, forbidden: Array) -> Array:
    """Give the tokens marked in `forbidden` (vocab,) probability zero."""
    return array_namespace(logits).where(forbidden, -math.inf, logits)


def penalise(logits: Array, seen: Array, penalty: float) -> Array:
    """Make the tokens marked in `seen` (batch, vocab) less likely, each once however often it came.

    Positive logits are divided by `penalty`, negative ones multiplied (CTRL, Keskar et al. 2019, section 4.1).
    """
    xp = array_namespace(logits)
    return xp.where(seen, xp.where(logits > 0, logits / penalty, logits * penalty), logits)


def apply_temperature(logits: Array, temperature: float) -> Array:
    """Divide the logits by a positive `temperature`: below 1 sharpens, above 1 flattens."""
    # From the largest down, so that the smallest temperature drives the others to -inf, not all to inf.
    shifted = logits - array_namespace(logits).max(logits, axis=-1, keepdims=True)
    return shifted if temperature == 1 else shifted / max(temperature, 1e-30)


def top_k_floor(logits: Array, k: int) -> Array:
    """Return the least logit of each row, (batch, 1), that is among the k largest; tokens tied with it stay too.

    So do both gpt-2 and transformers. k = 0, or beyond the vocabulary, keeps every token that has a probability.
    """
    xp = array_namespace(logits)
    lowest = xp.full(
        (logits.shape[0], 1), -3.4e38, dtype=logits.dtype, device=logits.device
    )  # the least finite float32
    return xp.maximum(_kth_largest(logits, k), lowest) if 0 < k < logits.shape[-1] else lowest


def top_p_floor(logits: Array, p: float, normaliser: Array) -> Array:
    """Return a logit for each row, (batch, 1), below which top-p keeps nothing: sorting may begin there.

    Bisection over the logits: what lies below the floor weighs less than 1 - p. `normaliser` is log_sum_exp(logits).
    """
    xp = array_namespace(logits)
    weights = xp.exp(logits - normaliser)  # (batch, vocab)
    most = 0.99 * (1 - p)  # less than 1 - p, for sums are rounded
    high = xp.max(logits, axis=-1, keepdims=True)
    low = high - 40  # what is below weighs less than any rounding
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        fits = xp.sum(xp.where(logits < middle, weights, 0.0), axis=-1, keepdims=True) < most
        low, high = xp.where(fits, middle, low), xp.where(fits, high, middle)
    return low


def candidates(logits: Array, floor: Array) -> tuple[Array, Array]:
    """Return the ids of each row's tokens from its floor (batch, 1) up, ascending, and their logits: both (batch, n).

    Hashing only those is what makes top-k fast. n is the largest count of any row; a shorter one ends in token 0 with
    logit -inf.
    """
    xp = array_namespace(logits)
    batch, vocab = logits.shape
    kept = logits >= floor
    if 2 * int(xp.count_nonzero(kept)) > batch * vocab:  # not worth moving
        tokens = xp.arange(vocab, dtype=xp.int64, device=logits.device)
        return xp.broadcast_to(tokens, logits.shape), xp.where(kept, logits, -math.inf)
    (flat,) = xp.nonzero(xp.reshape(kept, (-1,)))
    if batch == 1:
        return flat[None], logits[:, flat]
    rows, tokens = flat // vocab, flat % vocab
    counts = xp.count_nonzero(kept, axis=-1)
    places = xp.arange(flat.shape[0], dtype=xp.int64, device=logits.device) - (xp.cumulative_sum(counts) - counts)[rows]
    shape = (batch, int(xp.max(counts)))
    ids = xp.zeros(shape, dtype=xp.int64, device=logits.device)
    values = xp.full(shape, -math.inf, dtype=logits.dtype, device=logits.device)
    ids[rows, places] = tokens
    values[rows, places] = xp.reshape(logits, (-1,))[flat]
    return ids, values


def keep_top_p(logits: Array, p: float, rule: TopPRule = "hf", normaliser: Array | None = None) -> Array:
    """Keep the most likely tokens of each row up to probability p, at least one; of tied tokens the lower id first.

    "hf" keeps the token that crosses p (Holtzman et al. 2020, transformers); "openai" drops it (gpt-2, sample.py).
    `normaliser` (batch, 1) is the log_sum_exp of a row from which unlikely tokens were taken away.
    """
    if p >= 1:
        return logits  # a rounded sum may reach 1 before the last token
    xp = array_namespace(logits)
    order = _descending_order(logits)
    ordered = xp.take_along_axis(logits, order, axis=-1)
    probabilities = xp.exp(ordered - (log_sum_exp(logits) if normaliser is None else normaliser))
    reached = xp.cumulative_sum(probabilities, axis=-1)
    drop = reached - probabilities >= p if rule == "hf" else reached > p
    drop[..., 0] = False
    rows = xp.arange(logits.shape[0], dtype=xp.int64, device=logits.device)[:, None]
    kept = xp.empty_like(logits)
    kept[rows, order] = xp.where(drop, -math.inf, ordered)
    return kept


def log_sum_exp(logits: Array) -> Array:
    """Return the logarithm of each row's summed exponentials, (batch, 1): a logit less it is a log-probability."""
    xp = array_namespace(logits)
    largest = xp.max(logits, axis=-1, keepdims=True)
    return largest + xp.log(xp.sum(xp.exp(logits - largest), axis=-1, keepdims=True))


def random_uniforms(seed: int, indices: Array, positions: Array, tokens: Array) -> Array:
    """Return a number in (0, 1) per (seed, index, position, token), the same in either library and on every device.

    `indices` and `positions` are (batch,), `tokens` (n,) or (batch, n); all int64. The result is float32 (batch, n).
    Each (seed, index, position) is hashed to the start of a SplitMix64 stream, whose outputs belong to the tokens in
    order of id.
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
    return (state >> bits) & ((1 << (64 - bits)) - 1)  # int64 shifts copy the sign; the mask takes the copies away


def sample(logits: Array, uniforms: Array) -> Array:
    """Draw one place of each row, (batch,), from softmax(logits) by the Gumbel-max race.

    A race, not the inverse of the cumulative distribution: there a last-bit difference in one likely token moves the
    borders of all tokens after it, here it matters only where the two leaders tie, so rounding hardly ever changes a
    text.
    """
    xp = array_namespace(logits)
    arrivals = -xp.log1p(-uniforms)  # exponential; the float's finest steps lie near 0, where races are won
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

    `forbidden` (vocab,) marks the tokens that never come, `seen` (batch, vocab) those of the row's prompt and
    continuation: a repetition penalty needs it.
    """
    xp = array_namespace(logits)
    logits = xp.astype(logits, xp.float32, copy=False)
    if forbidden is not None:
        logits = forbid(logits, forbidden)
    if seen is not None and rules.repetition_penalty != 1:
        logits = penalise(logits, seen, rules.repetition_penalty)
    if rules.is_greedy:
        return xp.argmax(logits, axis=-1)
    # Top-k first: temperature changes no order, and dividing the kept ones alone is faster.
    tokens, logits = candidates(logits, top_k_floor(logits, rules.top_k))
    logits = apply_temperature(logits, rules.temperature)
    if rules.top_p < 1:
        normaliser = log_sum_exp(logits)
        places, logits = candidates(logits, top_p_floor(logits, rules.top_p, normaliser))
        tokens = xp.take_along_axis(tokens, places, axis=-1)
        logits = keep_top_p(logits, rules.top_p, rules.top_p_rule, normaliser)
    places = sample(logits, random_uniforms(seed, indices, positions, tokens))
    return xp.take_along_axis(tokens, places[:, None], axis=-1)[:, 0]


def report_tokens(
    logits: Array, chosen: Sequence[int], count: int, forbidden: Array | None = None
) -> list[TokenReport]:
    """Return a report with `count` alternatives for each row of `logits` (batch, vocab) and its chosen token."""
    xp = array_namespace(logits)
    logits = xp.astype(logits, xp.float32, copy=False)
    logits = logits if forbidden is None else forbid(logits, forbidden)
    normaliser = log_sum_exp(logits)  # (batch, 1)
    reports = []
    for row, norm, token in zip(logits, normaliser, chosen, strict=True):
        before = (row > row[token]) | ((row == row[token]) & (xp.arange(row.shape[0], device=row.device) < token))
        best = _descending_order(row)[:count]
        probabilities = xp.exp(row[best] - norm).tolist()
        alternatives = [pair for pair in zip(best.tolist(), probabilities, strict=True) if pair[1] > 0]
        reports.append(TokenReport(float(xp.exp(row[token] - norm[0])), 1 + int(xp.sum(before)), alternatives))
    return reports


def _descending_order(array: Array) -> Array:
    """Return the places of each row's entries from the largest down, of equal ones the first first."""
    xp = array_namespace(array)
    if hasattr(array, "topk"):  # torch's
        return xp.argsort(array, axis=-1, descending=True, stable=True)
    return xp.argsort(-array, axis=-1, stable=True)


def _kth_largest(logits: Array, k: int) -> Array:
    """Return each row's k-th largest logit, (batch, 1); the array standard has no selection, so ask each library."""
    if hasattr(logits, "topk"):
        return logits.topk(k).values[..., -1:]
    import numpy as np

    batch, vocab = logits.shape
    groups = vocab // GROUP
    if groups < 2 * k:
        return np.partition(logits, vocab - k, axis=-1)[:, vocab - k, None]
    # The k-th largest of the groups' maxima bounds it from below, at a third of the time of a selection over all.
    maxima = logits[:, : groups * GROUP].reshape(batch, GROUP, groups).max(axis=1)  # (batch, groups)
    bounds = np.partition(maxima, groups - k, axis=-1)[:, groups - k]
    return np.array([[np.partition(row[row >= bound], -k)[-k]] for row, bound in zip(logits, bounds, strict=True)])
