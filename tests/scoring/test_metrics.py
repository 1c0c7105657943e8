from __future__ import annotations

import gc
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptkit.scoring.metrics import METRICS, accuracy, f1, matthews, pearson, spearman

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


@pytest.mark.parametrize("name", ["f1", "matthews", "pearson", "spearman"])
@pytest.mark.parametrize("pair", [([0, 0, 0], [0, 1, 0]), ([0, 1, 0], [0, 0, 0]), ([0, 0, 0], [0, 0, 0]), ([0], [0])])
def test_a_constant_side_gives_zero_without_a_warning(name: str, pair: tuple[list[int], list[int]]) -> None:
    assert METRICS[name](*pair) == 0.0


@pytest.mark.parametrize("metric", [pearson, spearman])
def test_nearly_constant_predictions_warn_of_nothing(metric: object) -> None:
    assert callable(metric)
    value = metric(1e8 + np.array([0.0, 1e-7, 2e-7]), [1.0, 2.0, 3.0])
    assert -1 <= value <= 1


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1))
def test_all_metrics_are_finite_and_perfect_on_the_references(pairs: list[tuple[int, int]]) -> None:
    predicted, true = (np.array(side) for side in zip(*pairs, strict=True))
    for metric in METRICS.values():
        assert -1 <= metric(predicted, true) <= 1
        if 0 < true.sum() < len(true):
            assert metric(true, true) == pytest.approx(1)


@pytest.mark.parametrize("pair", [([], []), ([1], [1, 2]), ([[1]], [[1]])])
def test_shapes_that_do_not_match_are_an_error(pair: tuple[list[int], list[int]]) -> None:
    for metric in METRICS.values():
        with pytest.raises(ValueError, match="shape"):
            metric(*pair)


def test_evaluate_classes_say_the_same_and_leave_nothing() -> None:
    from gptkit.scoring import evaluate_metrics

    for name, function in METRICS.items():
        metric = getattr(evaluate_metrics, name.capitalize())()
        folder = Path(metric.data_dir)
        expected = {name: pytest.approx(function(PREDICTED, TRUE))}
        assert metric.compute(predictions=PREDICTED, references=TRUE) == expected
        for one, other in zip(PREDICTED, TRUE, strict=True):
            metric.add(prediction=one, reference=other)
        assert metric.compute() == expected
        assert folder.is_relative_to(tempfile.gettempdir())
        assert folder.exists()
        del metric
        gc.collect()
        assert not folder.exists()
