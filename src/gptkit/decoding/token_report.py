"""What the model itself thought of the tokens that were chosen: probability, rank and the likeliest alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gptkit.decoding.arrays import Array, array_namespace, descending_order
from gptkit.decoding.sampling import forbid, log_sum_exp


class TokenReport(NamedTuple):
    """A chosen token in the model's own distribution, before any rule; forbidden tokens are left out of it.

    `rank` is 1 for the likeliest, of tied tokens the lower id comes first. `alternatives` are the likeliest tokens,
    the chosen one too where it is among them, as (token id, probability), the likeliest first.
    """

    probability: float
    rank: int
    alternatives: list[tuple[int, float]]


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
        best = descending_order(row)[:count]
        probabilities = xp.exp(row[best] - norm).tolist()
        alternatives = [pair for pair in zip(best.tolist(), probabilities, strict=True) if pair[1] > 0]
        reports.append(TokenReport(float(xp.exp(row[token] - norm[0])), 1 + int(xp.sum(before)), alternatives))
    return reports
