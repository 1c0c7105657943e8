from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptkit.scoring import metrics
from gptkit.scoring.metrics import METRICS, compute

accuracy, f1, matthews, pearson, spearman = (partial(compute, name) for name in METRICS)
TRUE = [1, 1, 1, 0, 0, 0, 0, 0]
PREDICTED = [1, 1, 0, 1, 0, 0, 0, 0]  # 2 true positives, 1 missed, 1 false, 4 true negatives


def test_classes_by_hand() -> None:
    assert accuracy(PREDICTED, TRUE) == 6 / 8
    assert f1(PREDICTED, TRUE) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert matthews(PREDICTED, TRUE) == pytest.approx((2 * 4 - 1 * 1) / math.sqrt(3 * 3 * 5 * 5))
    assert matthews([0, 1], [1, 0]) == -1


def test_three_classes_by_hand() -> None:
    assert accuracy([0, 1, 2, 2], [0, 1, 2, 1]) == 0.75
    # (c s - sum p t) / sqrt((s^2 - sum p^2)(s^2 - sum t^2)): 3 of 4, predicted 1 1 2, true 1 2 1
    assert matthews([0, 1, 2, 2], [0, 1, 2, 1]) == pytest.approx((3 * 4 - 5) / math.sqrt((16 - 6) * (16 - 6)))


def test_f1_is_of_class_one_and_not_symmetric_in_the_classes() -> None:
    assert f1([0, 0, 0, 1], [0, 0, 1, 1]) == pytest.approx(2 / 3)
    assert f1([1, 1, 1, 0], [1, 1, 0, 0]) == pytest.approx(4 / 5)


def test_scores_by_hand() -> None:
    # deviations -1.5 -0.5 0.5 1.5 and -1 -1 0 2: covariance 5, sums of squares 5 and 6
    assert pearson([1, 2, 3, 4], [1, 1, 2, 4]) == pytest.approx(5 / math.sqrt(5 * 6))
    # ranks 1 2 3 4 and 1.5 1.5 3 4: covariance 4.5, sums of squares 5 and 4.5
    assert spearman([1, 2, 3, 4], [1, 1, 2, 4]) == pytest.approx(4.5 / math.sqrt(5 * 4.5))
    assert spearman([1, 10, 100], [3.0, 2.5, 0.0]) == pytest.approx(-1)


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman"])
@pytest.mark.parametrize("pair", [([0, 0, 0], [0, 1, 0]), ([0, 1, 0], [0, 0, 0]), ([0, 0, 0], [0, 0, 0]), ([0], [0])])
def test_a_correlation_with_a_constant_side_is_undefined(name: str, pair: tuple[list[int], list[int]]) -> None:
    assert math.isnan(compute(name, *pair))


def test_f1_is_zero_where_class_one_is_missed_and_undefined_where_it_does_not_occur() -> None:
    assert f1([0, 0, 0], [0, 1, 0]) == f1([0, 1, 0], [0, 0, 0]) == 0.0
    assert math.isnan(f1([0, 0, 0], [0, 0, 0]))


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_nearly_constant_predictions_warn_of_nothing_and_what_is_not_finite_gives_nan(name: str) -> None:
    assert -1 <= compute(name, 1e8 + np.array([0.0, 1e-7, 2e-7]), [1.0, 2.0, 3.0]) <= 1
    assert math.isnan(compute(name, [math.nan, 1.0, 2.0], [1.0, 2.0, 3.0]))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1))
def test_all_metrics_are_in_their_range_or_undefined_and_perfect_on_the_references(
    pairs: list[tuple[int, int]],
) -> None:
    predicted, true = (np.array(side, np.float64) for side in zip(*pairs, strict=True))
    for name in METRICS:
        value = metrics.metric(name).value
        found = value(predicted, true)
        assert -1 <= found <= 1 or (name != "accuracy" and math.isnan(found))
        if 0 < true.sum() < len(true):
            assert value(true, true) == pytest.approx(1)


@pytest.mark.parametrize("pair", [([], []), ([1], [1, 2]), ([[1]], [[1]])])
def test_shapes_that_do_not_match_are_an_error(pair: tuple[list[int], list[int]]) -> None:
    for name in METRICS:
        with pytest.raises(ValueError, match="shape"):
            compute(name, *pair)


@pytest.mark.parametrize("kind", METRICS.values())
def test_they_are_metrics_of_evaluate_which_leave_nothing_behind(
    kind: type[metrics.PairMetric], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    metric = kind()
    expected = {kind.metric: compute(kind.metric, PREDICTED, TRUE)}
    assert metric.compute(predictions=PREDICTED, references=TRUE) == expected
    for one, other in zip(PREDICTED, TRUE, strict=True):
        metric.add(prediction=one, reference=other)
    assert metric.compute() == expected
    assert not [*tmp_path.iterdir()]


def test_random_numbers_go_on_as_if_nothing_was_computed() -> None:
    np.random.seed(3)
    expected = np.random.random(3)
    np.random.seed(3)
    compute("accuracy", PREDICTED, TRUE)
    assert np.random.random(3).tolist() == expected.tolist()
