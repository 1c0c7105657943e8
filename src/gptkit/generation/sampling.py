"""The rules that choose the next token: pure functions on logits (batch, vocab).

The order is OpenAI's (gpt-2, sample.py): temperature, then top-k, then top-p over what top-k left. Randomness is
counter-based: a number per (seed, index, position, token), so a sample's text depends on no other sample and on no
generator's state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

TopPRule = Literal["hf", "openai"]

# SplitMix64 (Steele, Lea, Flood 2014): its step and its two multipliers, as int64 because torch has no uint64 product.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - 2**64
_MULTIPLIER_2 = 0x94D049BB133111EB - 2**64


@dataclass(frozen=True, kw_only=True)
class SamplingRules:
    """How the next token is chosen; `temperature` 0 is greedy, `top_k` 0 and `top_p` 1 keep every token."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    top_p_rule: TopPRule = "hf"


def forbid(logits: Tensor, forbidden: Tensor) -> Tensor:
    """Give the tokens marked in `forbidden` (vocab,) probability zero."""
    return logits.masked_fill(forbidden, float("-inf"))


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide the logits by a positive `temperature`: below 1 sharpens, above 1 flattens."""
    # From the largest down, so that the smallest temperature drives the others to -inf, not all to inf.
    return (logits - logits.amax(dim=-1, keepdim=True)) / max(temperature, 1e-30)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k likeliest tokens of each row, and those tied with the k-th (as both gpt-2 and transformers do).

    0, or k beyond the vocabulary, keeps all.
    """
    if not 0 < k < logits.shape[-1]:
        return logits
    kth = torch.topk(logits, k).values[..., -1:]  # (batch, 1)
    return logits.masked_fill(logits < kth, float("-inf"))


def keep_top_p(logits: Tensor, p: float, rule: TopPRule = "hf") -> Tensor:
    """Keep the likeliest tokens of each row up to probability p, at least one; of tied tokens the lower id comes first.

    "hf" keeps the token that crosses p (Holtzman et al. 2020, transformers); "openai" drops it (gpt-2, sample.py).
    """
    if p >= 1:
        return logits  # a rounded sum may reach 1 before the last token
    ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    reached = probabilities.cumsum(dim=-1)
    drop = reached - probabilities >= p if rule == "hf" else reached > p
    drop[..., 0] = False
    return logits.masked_fill(torch.empty_like(drop).scatter_(-1, ids, drop), float("-inf"))


def random_uniforms(seed: int, indices: Tensor, positions: Tensor, tokens: Tensor) -> Tensor:
    """Return a number in (0, 1) per (seed, index, position, token), the same on every device.

    `indices` and `positions` are (batch,), `tokens` (n,) or (batch, n); all int64. The result is float32 (batch, n).
    Each (seed, index, position) is hashed to the start of a SplitMix64 stream, whose outputs belong to the tokens in
    order of id.
    """
    key = _mix(torch.full_like(indices, seed) + _STEP)
    key = _mix(key + (indices + 1) * _STEP)
    key = _mix(key + (positions + 1) * _STEP)
    bits = _mix(key[:, None] + (tokens + 1) * _STEP) & (2**63 - 1)  # (batch, n)
    return (bits.float() * 2.0**-63).clamp(2.0**-63, 1 - 2.0**-24)


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift_right(state, 30)) * _MULTIPLIER_1
    state = (state ^ _shift_right(state, 27)) * _MULTIPLIER_2
    return state ^ _shift_right(state, 31)


def _shift_right(state: Tensor, bits: int) -> Tensor:
    return (state >> bits) & ((1 << (64 - bits)) - 1)  # int64 shifts copy the sign; the mask takes the copies away


def sample(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one token id a row, (batch,), from softmax(logits) by the Gumbel-max race.

    A race, not the inverse of the cumulative distribution: there a last-bit difference in one likely token moves the
    borders of all tokens after it, here it matters only where the two leaders tie, so rounding hardly ever changes a
    text.
    """
    arrivals = -torch.log1p(-uniforms)  # exponential; the float's finest steps lie near 0, where races are won
    return (logits - arrivals.log()).argmax(dim=-1)


def choose(
    logits: Tensor, rules: SamplingRules, *, seed: int, indices: Tensor, positions: Tensor, forbidden: Tensor
) -> Tensor:
    """Return the next token id of each row, (batch,), from logits (batch, vocab) of any float type."""
    logits = forbid(logits.float(), forbidden)
    if rules.temperature == 0:
        return logits.argmax(dim=-1)
    logits = keep_top_k(apply_temperature(logits, rules.temperature), rules.top_k)
    logits = keep_top_p(logits, rules.top_p, rules.top_p_rule)
    tokens = torch.arange(logits.shape[-1], device=logits.device)
    return sample(logits, random_uniforms(seed, indices, positions, tokens))
