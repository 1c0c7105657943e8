"""Masks of a masked language model: their shares, and that they follow seed and row alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from gptkit.text.blocks import block_order
from gptkit.text.masking import NOT_CHOSEN, VALIDATION_SEED, is_chosen, mask_row

MASK, LENGTH = 5_000, 1_000


@pytest.fixture(scope="module")
def million() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return tokens, what is read in their place, and labels, (1000, 1000) each."""
    tokens = np.random.default_rng(0).integers(0, MASK, (1_000, LENGTH))
    pairs = [mask_row(row, MASK, seed=3, row=number) for number, row in enumerate(tokens)]
    read, labels = map(np.stack, zip(*pairs, strict=True))
    return tokens, read, labels


def within(count: int, total: int, share: float) -> bool:
    """Whether a count is within four standard deviations of a binomial's mean."""
    return abs(count - share * total) < 4 * math.sqrt(total * share * (1 - share))


def test_shares_hold_on_a_million_tokens(million: tuple[NDArray[np.int64], ...]) -> None:
    tokens, read, labels = million
    chosen = labels != NOT_CHOSEN
    assert within(chosen.sum(), tokens.size, 0.15)
    masked, kept = (read == MASK)[chosen], (read == tokens)[chosen]
    assert within(masked.sum(), chosen.sum(), 0.8)
    assert within(kept.sum(), chosen.sum(), 0.1 + 0.1 / MASK)  # a random token may be the token itself
    assert within((~masked & ~kept).sum(), chosen.sum(), 0.1 - 0.1 / MASK)
    assert np.array_equal(labels[chosen], tokens[chosen])
    assert np.array_equal(read[~chosen], tokens[~chosen])
    by_place, by_row = chosen.sum(0), chosen.sum(1)  # each token by itself: the counts spread as binomials do
    for counts in (by_place, by_row):
        assert counts.std() == pytest.approx(math.sqrt(1_000 * 0.15 * 0.85), rel=0.1)


def test_random_tokens_are_all_of_the_text_and_never_the_mask(million: tuple[NDArray[np.int64], ...]) -> None:
    tokens, read, labels = million
    random = read[(labels != NOT_CHOSEN) & (read != tokens) & (read != MASK)]
    assert random.max() < MASK
    assert np.histogram(random, 10, (0, MASK))[0] == pytest.approx(np.full(10, len(random) / 10), rel=0.15)


def test_masks_follow_seed_and_row_alone() -> None:
    tokens = np.arange(200)
    one, same = (mask_row(tokens, MASK, seed=1, row=7) for _ in range(2))
    assert all(map(np.array_equal, one, same))
    assert np.array_equal(one[1] != NOT_CHOSEN, is_chosen(1, 7, 200))
    assert np.array_equal(is_chosen(1, 7, 200)[:150], is_chosen(1, 7, 150))
    others = [is_chosen(*other, 200) for other in ((1, 8), (2, 7), (VALIDATION_SEED, 7))]
    assert not any(np.array_equal(one[1] != NOT_CHOSEN, other) for other in others)
    assert not np.array_equal(np.argsort(is_chosen(1, 7, 200), kind="stable"), block_order(1, 7, 200))
