"""Intervals of a measure and of a difference, against hand-worked values, exact tests and planted effects."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from gptkit.scoring.intervals import item_interval, paired_interval
from gptkit.scoring.measures import MEASURES
from gptkit.scoring.resampling import Floats

ACCURACY, F1, PEARSON = (MEASURES[name] for name in ("accuracy", "f1", "pearson"))


def answers(*right: int, n: int) -> dict[str, NDArray[np.float64]]:
    """The columns of n items of which those listed are right."""
    return {"correct": np.isin(np.arange(n), right).astype(np.float64)}


def test_an_accuracy_s_interval_is_wilson_s() -> None:
    assert item_interval(ACCURACY, answers(*range(71), n=100)) == pytest.approx((0.61461, 0.78985), abs=1e-5)
    assert item_interval(ACCURACY, answers(*range(10), n=10)) == pytest.approx((0.72247, 1.0), abs=1e-5)
    assert item_interval(ACCURACY, answers(0, n=1)) is None


def test_a_difference_of_three_answers_in_180_is_none() -> None:
    """Bonett and Price: -3/182, give or take 1.96 sqrt((5/182 - (3/182)^2) / 182)."""
    interval = paired_interval(ACCURACY, answers(n=180), answers(1, 2, 3, n=180))
    assert interval == pytest.approx((-0.040445, 0.007477), abs=1e-6)


@pytest.mark.parametrize("gained", range(12))
@pytest.mark.parametrize("lost", range(12))
def test_it_holds_zero_where_mcnemar_s_exact_test_finds_nothing(gained: int, lost: int) -> None:
    ours, theirs = answers(*range(gained), n=40), answers(*range(gained, gained + lost), n=40)
    low, high = paired_interval(ACCURACY, ours, theirs) or (1, 1)
    found = gained + lost > 0 and binomtest(gained, gained + lost).pvalue < 0.05
    assert (low <= 0 <= high) == (not found)


def scored(random: np.random.Generator, true: Floats, noise: float) -> dict[str, Floats]:
    return {"prediction": true + random.normal(0, noise, len(true)), "reference": true}


def test_an_interval_of_a_correlation_covers_the_planted_difference_and_pairs_items() -> None:
    covered = []
    for seed in range(10):
        random = np.random.default_rng(seed)
        true = random.normal(size=80)
        ours, theirs = scored(random, true, 0.5), scored(random, true, 1.0)
        low, high = paired_interval(PEARSON, ours, theirs) or (1, 1)
        covered.append(low <= 1 / 1.25**0.5 - 1 / 2**0.5 <= high)
        assert 0.1 < high - low < 0.4
    assert sum(covered) >= 8


def test_what_is_not_defined_has_no_interval() -> None:
    constant = {"prediction": np.ones(5), "reference": np.arange(5.0)}
    assert item_interval(F1, {"prediction": np.zeros(1), "reference": np.ones(1)}) is None
    assert paired_interval(PEARSON, constant, constant) is None


def test_items_that_all_score_the_same_do_not_show_how_far_others_would() -> None:
    right = {"prediction": np.arange(12.0) % 2, "reference": np.arange(12.0) % 2}
    wrong = {"prediction": 1 - right["prediction"], "reference": right["reference"]}
    assert item_interval(F1, right) is None
    assert paired_interval(F1, right, wrong) is None
