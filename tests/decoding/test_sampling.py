"""The sampling rules keep the right tokens, draws follow the distribution, and numpy and torch agree."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gptkit.decoding.sampling import (
    SamplingRules,
    TopPRule,
    candidates,
    choose,
    forbid,
    keep_top_p,
    log_sum_exp,
    penalize,
    random_uniforms,
    sample,
    top_k_floor,
    top_p_floor,
)

PROBABILITIES = np.array([0.25, 0.1, 0.5, 0.15])
TOY = np.log(PROBABILITIES).astype(np.float32)[None]
LIBRARIES = [np.asarray, torch.asarray]
RULES = [
    SamplingRules(),
    SamplingRules(temperature=0.7, top_k=40),
    SamplingRules(top_k=3, top_p=0.8),
    SamplingRules(top_p=0.9),
    SamplingRules(top_p=0.9, top_p_rule="openai", temperature=1.3),
    SamplingRules(temperature=0.0),
    SamplingRules(repetition_penalty=1.3, top_k=40),
]


def kept(logits: Any) -> set[int]:
    return set(np.flatnonzero(np.isfinite(np.asarray(logits)[0])).tolist())


def follows(drawn: Any, probabilities: np.ndarray) -> bool:
    """Chi-square test that a correct sampler fails once in a thousand times."""
    counts = np.bincount(np.asarray(drawn), minlength=len(probabilities))
    return bool(stats.chisquare(counts, probabilities * len(drawn)).pvalue > 1e-3)


def as_before(logits: torch.Tensor, rules: SamplingRules, indices: torch.Tensor, positions: torch.Tensor) -> list[int]:
    """Choose by the plain formula over the whole vocabulary: mask, sort and hash everything."""
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / rules.temperature
    if 0 < rules.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(rules.top_k).values[:, -1:], -math.inf)
    if rules.top_p < 1:
        ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
        probabilities = ordered.softmax(dim=-1)
        reached = probabilities.cumsum(dim=-1)
        drop = reached - probabilities >= rules.top_p if rules.top_p_rule == "hf" else reached > rules.top_p
        drop[:, 0] = False
        logits = logits.masked_fill(torch.empty_like(drop).scatter_(-1, ids, drop), -math.inf)
    uniforms = random_uniforms(9, indices, positions, torch.arange(logits.shape[-1]))
    return (logits - (-torch.log1p(-uniforms)).log()).argmax(dim=-1).tolist()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("k", "expected"), [(0, [0, 1, 2, 3]), (1, [2]), (2, [0, 2]), (3, [0, 2, 3]), (9, [0, 1, 2, 3])]
)
def test_top_k_keeps_the_k_likeliest(library: Any, k: int, expected: list[int]) -> None:
    tokens, logits = candidates(library(TOY), top_k_floor(library(TOY), k))
    assert [int(token) for token, logit in zip(tokens[0], logits[0], strict=True) if logit > -math.inf] == expected


@pytest.mark.parametrize("library", LIBRARIES)
def test_top_k_keeps_ties_with_the_kth_in_each_row(library: Any) -> None:
    logits = library(np.float32([[3, 1, 2, 2, 0, 0, 0, 0], [1, 2, 3, 4, 0, 0, 0, 0]]))
    tokens, values = candidates(logits, top_k_floor(logits, 2))
    assert tokens.tolist() == [[0, 2, 3], [2, 3, 0]]
    assert values.tolist() == [[3, 2, 2], [3, 4, -math.inf]]


@pytest.mark.parametrize("library", LIBRARIES)
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
def test_top_p_keeps_by_rule(library: Any, p: float, rule: TopPRule, expected: set[int]) -> None:
    assert kept(keep_top_p(library(TOY), p, rule)) == expected


def test_of_tied_tokens_top_p_keeps_the_lower_ids() -> None:
    assert kept(keep_top_p(np.zeros((1, 4), np.float32), 0.5)) == {0, 1}


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.99])
def test_what_lies_below_the_floor_top_p_would_drop_anyway(p: float) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (5, 3000)).astype(np.float32)
    logits -= logits.max(axis=1, keepdims=True)
    normalizer = log_sum_exp(logits)
    tokens, few = candidates(logits, top_p_floor(logits, p, normalizer))
    for rule in ("hf", "openai"):
        whole, part = keep_top_p(logits, p, rule), keep_top_p(few, p, rule, normalizer)
        for row in range(5):
            ids = tokens[row][np.isfinite(part[row])]
            assert sorted(ids.tolist()) == np.flatnonzero(np.isfinite(whole[row])).tolist()
    assert few.shape[1] < 2 * np.isfinite(whole).sum(axis=1).max() + 5  # a floor that saves sorting


def test_the_penalty_is_that_of_the_paper() -> None:
    """Logits of seen tokens are divided if above 0, multiplied if below; others stay the same."""
    logits = np.float32([[2, -2, 2, -2]])
    assert penalize(logits, np.array([[True, True, False, False]]), 2.0).tolist() == [[1, -4, 2, -2]]
    where = {"seed": 0, "indices": np.zeros(1, int), "positions": np.zeros(1, int)}
    rules = SamplingRules(temperature=0.0, repetition_penalty=1.5)
    seen = np.array([[False, False, True, False]])
    assert choose(np.float32([[1, 0, 1.4, 0]]), rules, seen=seen, **where).tolist() == [0]  # 1.4 / 1.5 < 1


def splitmix64(state: int) -> int:
    """The published finalizer, in Python's integers."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


@pytest.mark.parametrize("library", LIBRARIES)
@given(st.integers(0, 2**31 - 1), st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 60_000))
@settings(max_examples=50)
def test_uniforms_are_the_published_hash(library: Any, seed: int, index: int, position: int, token: int) -> None:
    step = 0x9E3779B97F4A7C15
    assert splitmix64((1234567 + step) % 2**64) == 6457827717110365317  # the generator's first published output
    key = splitmix64((seed + step) % 2**64)
    key = splitmix64((key + (index + 1) * step) % 2**64)
    key = splitmix64((key + (position + 1) * step) % 2**64)
    bits = splitmix64((key + (token + 1) * step) % 2**64) % 2**63
    one = (library(np.array([number])) for number in (index, position, token))
    drawn = random_uniforms(seed, *one).item()
    assert drawn == pytest.approx(bits / 2**63, rel=1e-6)
    assert 0 < drawn < 1


def test_100_000_draws_follow_the_distribution() -> None:
    """Chi-square over positions and over indices: neither sequence may show a pattern."""
    draws = 100_000
    logits = np.broadcast_to(TOY, (draws, 4))
    count, zeros = np.arange(draws), np.zeros(draws, dtype=np.int64)
    for indices, positions in [(count, zeros), (zeros, count)]:
        drawn = sample(logits, random_uniforms(7, indices, positions, np.arange(4)))
        assert follows(drawn, PROBABILITIES)
        pairs = drawn[0::2] * 4 + drawn[1::2]  # neighbours are independent
        assert follows(pairs, np.outer(PROBABILITIES, PROBABILITIES).flatten())


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("vocabulary", [7, 9000])
def test_numpy_torch_and_the_plain_formula_choose_alike(rules: SamplingRules, vocabulary: int) -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 3, (50, vocabulary)).astype(np.float32)
    seen = generator.random((50, vocabulary)) < 0.3
    indices, positions = np.arange(50), np.arange(50) * 3
    chosen = choose(logits, rules, seed=9, indices=indices, positions=positions, seen=seen)
    assert chosen.dtype == np.int64
    tensors = [torch.from_numpy(array) for array in (logits, indices, positions, seen)]
    by_torch = choose(tensors[0], rules, seed=9, indices=tensors[1], positions=tensors[2], seen=tensors[3])
    assert chosen.tolist() == by_torch.tolist()
    one_by_one = [
        choose(logits[i : i + 1], rules, seed=9, indices=indices[i : i + 1], positions=positions[i : i + 1],
               seen=seen[i : i + 1]).item()
        for i in range(50)
    ]  # fmt: skip
    assert chosen.tolist() == one_by_one
    if rules.temperature > 0 and rules.repetition_penalty == 1:
        assert chosen.tolist() == as_before(tensors[0], rules, tensors[1], tensors[2])


def test_choose_applies_the_rules_and_never_takes_a_forbidden_token() -> None:
    draws = 4_000
    where = {"seed": 0, "indices": np.arange(draws), "positions": np.zeros(draws, int)}
    forbidden = np.array([False, False, True, False])

    def drawn(rules: SamplingRules) -> set[int]:
        return set(choose(np.broadcast_to(TOY, (draws, 4)), rules, forbidden=forbidden, **where).tolist())

    assert drawn(SamplingRules()) == {0, 1, 3}
    assert drawn(SamplingRules(top_k=2)) == {0, 3}
    assert drawn(SamplingRules(temperature=0.0)) == {0}
    assert drawn(SamplingRules(top_k=1)) == {0}
    assert drawn(SamplingRules(top_k=2, top_p=0.6)) == {0}  # 5/8 of what top-k left, not 1/2 of all
    assert kept(forbid(TOY, forbidden)) == {0, 1, 3}


@pytest.mark.parametrize("field", dataclasses.fields(SamplingRules), ids=lambda field: field.name)
def test_every_rule_changes_what_is_chosen(field: dataclasses.Field[Any]) -> None:
    """A field of SamplingRules that `choose` does not read would be a flag that does nothing."""
    kind = get_type_hints(SamplingRules)[field.name]
    values = {int: 3, float: 0.5, bool: True}
    value = values[kind] if kind in values else next(name for name in get_args(kind) if name != field.default)
    generator, rows = np.random.default_rng(2), np.arange(200)
    logits, seen = generator.normal(0, 3, (200, 50)).astype(np.float32), generator.random((200, 50)) < 0.3
    rules = SamplingRules(top_p=0.9)  # top_p_rule says something where there is a top_p
    plain, changed = (
        choose(logits, one, seed=3, indices=rows, positions=rows, seen=seen)
        for one in (rules, dataclasses.replace(rules, **{field.name: value}))
    )
    assert plain.tolist() != changed.tolist(), f"choose() does not read {field.name}"


def test_temperature_divides_the_logits() -> None:
    """At temperature 2 the toy's probabilities are the square roots', renormalized."""
    rows = np.arange(50_000)
    rules = SamplingRules(temperature=2.0)
    chosen = choose(np.broadcast_to(TOY, (len(rows), 4)), rules, seed=1, indices=rows, positions=rows)
    roots = np.sqrt(PROBABILITIES)
    assert follows(chosen, roots / roots.sum())


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_largest_temperature_draws_evenly_from_what_is_allowed(library: Any) -> None:
    rules, rows = SamplingRules(temperature=1e38), np.arange(3000)
    forbidden = library(np.array([False, True, False, False]))
    logits = library(np.repeat(1e4 * TOY, len(rows), axis=0))
    drawn = choose(logits, rules, seed=0, indices=library(rows), positions=library(0 * rows), forbidden=forbidden)
    assert follows(np.searchsorted([0, 2, 3], np.asarray(drawn)), np.full(3, 1 / 3))
    assert set(np.asarray(drawn).tolist()) == {0, 2, 3}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("penalty", [0.01, 1e38])
def test_no_penalty_makes_a_forbidden_token_possible(library: Any, penalty: float) -> None:
    rules, rows = SamplingRules(repetition_penalty=penalty, top_p=0.9), library(np.arange(5))
    logits = library(np.repeat(np.float32([[3e38, 3e38, 1e10, -3e38]]), 5, axis=0))
    forbidden = library(np.array([False, True, False, False]))
    seen = library(np.ones((5, 4), np.bool_))
    with np.errstate(over="ignore"):
        drawn = choose(logits, rules, seed=0, indices=rows, positions=rows, forbidden=forbidden, seen=seen)
    assert 1 not in drawn.tolist()
