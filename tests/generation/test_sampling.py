"""The sampling rules keep the sets that a hand keeps, and draws follow the distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from gptkit.generation.sampling import (
    SamplingRules,
    TopPRule,
    choose,
    forbid,
    keep_top_k,
    keep_top_p,
    random_uniforms,
    sample,
)

PROBABILITIES = np.array([0.25, 0.1, 0.5, 0.15])
TOY = torch.from_numpy(PROBABILITIES).log().float()[None]


def kept(logits: Tensor) -> set[int]:
    return set(torch.isfinite(logits[0]).nonzero().flatten().tolist())


def follows(drawn: Tensor, probabilities: np.ndarray) -> bool:
    """Chi-square: no worse than one honest sampler in a thousand."""
    counts = torch.bincount(drawn, minlength=len(probabilities)).numpy()
    return bool(stats.chisquare(counts, probabilities * len(drawn)).pvalue > 1e-3)


@pytest.mark.parametrize(
    ("k", "expected"), [(0, {0, 1, 2, 3}), (1, {2}), (2, {0, 2}), (3, {0, 2, 3}), (9, {0, 1, 2, 3})]
)
def test_top_k_keeps_the_k_likeliest(k: int, expected: set[int]) -> None:
    assert kept(keep_top_k(TOY, k)) == expected


def test_top_k_keeps_ties_with_the_kth() -> None:
    assert kept(keep_top_k(torch.tensor([[3.0, 1.0, 2.0, 2.0]]), 2)) == {0, 2, 3}


@pytest.mark.parametrize(
    ("p", "rule", "expected"),
    [
        (0.8, "hf", {0, 2, 3}),  # 0.5 + 0.25 < 0.8: the token that crosses stays
        (0.8, "openai", {0, 2}),  # ... and is dropped
        (0.1, "hf", {2}),
        (0.1, "openai", {2}),  # at least one
        (0.95, "hf", {0, 1, 2, 3}),
        (0.95, "openai", {0, 2, 3}),
        (1.0, "hf", {0, 1, 2, 3}),
        (1.0, "openai", {0, 1, 2, 3}),
    ],
)
def test_top_p_keeps_by_rule(p: float, rule: TopPRule, expected: set[int]) -> None:
    assert kept(keep_top_p(TOY, p, rule)) == expected


def test_top_p_sees_what_top_k_left() -> None:
    """After top-k 2 the toy is 2/3, 1/3: p = 0.6 is crossed by the first token, which 0.5 alone would not do."""
    assert kept(keep_top_p(keep_top_k(TOY, 2), 0.6)) == {2}
    assert kept(keep_top_p(TOY, 0.6)) == {0, 2}


def splitmix64(state: int) -> int:
    """The published finaliser, in Python's integers."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 60_000))
@settings(max_examples=50, deadline=None)
def test_uniforms_are_the_published_hash(seed: int, index: int, position: int, token: int) -> None:
    step = 0x9E3779B97F4A7C15
    assert splitmix64((1234567 + step) % 2**64) == 6457827717110365317  # the generator's first published output
    key = splitmix64((seed + step) % 2**64)
    key = splitmix64((key + (index + 1) * step) % 2**64)
    key = splitmix64((key + (position + 1) * step) % 2**64)
    bits = splitmix64((key + (token + 1) * step) % 2**64) % 2**63
    drawn = random_uniforms(seed, torch.tensor([index]), torch.tensor([position]), torch.tensor([token]))
    assert drawn.item() == pytest.approx(bits / 2**63, rel=1e-6)
    assert 0 < drawn.item() < 1


def test_100_000_draws_follow_the_distribution() -> None:
    """Chi-square over positions, and over indices: neither way of counting may show."""
    draws = 100_000
    logits = TOY.expand(draws, -1)
    count, zeros = torch.arange(draws), torch.zeros(draws, dtype=torch.long)
    for indices, positions in [(count, zeros), (zeros, count)]:
        drawn = sample(logits, random_uniforms(7, indices, positions, torch.arange(4)))
        assert follows(drawn, PROBABILITIES)
        pairs = drawn[0::2] * 4 + drawn[1::2]  # neighbours are independent
        assert follows(pairs, np.outer(PROBABILITIES, PROBABILITIES).flatten())


def test_choose_applies_the_rules_and_never_takes_a_forbidden_token() -> None:
    draws = 4_000
    rows = torch.arange(draws)
    forbidden = torch.tensor([False, False, True, False])

    def drawn(rules: SamplingRules) -> set[int]:
        chosen = choose(
            TOY.expand(draws, -1), rules, seed=0, indices=rows, positions=torch.zeros_like(rows), forbidden=forbidden
        )
        return set(chosen.tolist())

    assert drawn(SamplingRules()) == {0, 1, 3}
    assert drawn(SamplingRules(top_k=2)) == {0, 3}
    assert drawn(SamplingRules(temperature=0.0)) == {0}
    assert drawn(SamplingRules(top_k=1)) == {0}
    assert kept(forbid(TOY, forbidden)) == {0, 1, 3}


def test_temperature_divides_the_logits() -> None:
    """At temperature 2 the toy's probabilities are the square roots', renormalised."""
    draws = 50_000
    rows = torch.arange(draws)
    chosen = choose(
        TOY.expand(draws, -1),
        SamplingRules(temperature=2.0),
        seed=1,
        indices=rows,
        positions=rows,
        forbidden=torch.zeros(4, dtype=torch.bool),
    )
    roots = np.sqrt(PROBABILITIES)
    assert follows(chosen, roots / roots.sum())
