"""Metrics of pairs along the last axis, (..., item) twice -> (...), for thousands of resamples at once.

They are the metrics of metrics.py, 0.0 where those are; the area under the curve is NaN where one class is missing.
"""

from __future__ import annotations

import numpy as np

from gptkit.evaluate.gate.detectable import RowMetric
from gptkit.evaluate.gate.paired_tests import Floats


def f1_rows(predictions: Floats, references: Floats) -> Floats:
    """Return the harmonic mean of precision and recall of class 1."""
    predicted, true = predictions == 1, references == 1
    found = np.count_nonzero(predicted & true, axis=-1)
    named = np.count_nonzero(predicted, axis=-1) + np.count_nonzero(true, axis=-1)
    return _ratio(2.0 * found, named)


def matthews_of(classes: Floats) -> RowMetric:
    """Return Matthews' correlation of predictions and references that are all among `classes` (class,).

    Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient" (2004), equation 8, with
    counts in place of covariances.
    """

    def matthews_rows(predictions: Floats, references: Floats) -> Floats:
        n = predictions.shape[-1]
        predicted = [np.count_nonzero(predictions == one, axis=-1) for one in classes]  # each (...)
        true = [np.count_nonzero(references == one, axis=-1) for one in classes]
        right = np.count_nonzero(predictions == references, axis=-1).astype(np.float64)
        common = sum(1.0 * p * t for p, t in zip(predicted, true, strict=True))
        spread = [n * n - sum(1.0 * count * count for count in side) for side in (predicted, true)]
        return _ratio(n * right - common, np.sqrt(spread[0] * spread[1]))

    return matthews_rows


def pearson_rows(predictions: Floats, references: Floats) -> Floats:
    """Return Pearson's linear correlation."""
    x, y = _centred(predictions), _centred(references)
    products = (x * y).sum(axis=-1)
    return np.clip(_ratio(products, np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))), -1.0, 1.0)


def spearman_rows(predictions: Floats, references: Floats) -> Floats:
    """Return Spearman's correlation of ranks; equal values share their mean rank."""
    return pearson_rows(_ranks(predictions), _ranks(references))


def auc_rows(scores: Floats, references: Floats) -> Floats:
    """Return the area under the ROC curve: how often an item of class 1 scores above one of class 0, ties by half.

    Computed from the rank sum of class 1 (Hanley and McNeil, "The Meaning and Use of the Area under a Receiver
    Operating Characteristic (ROC) Curve", 1982).
    """
    positive = references == 1
    ones = np.count_nonzero(positive, axis=-1).astype(np.float64)
    zeros = references.shape[-1] - ones
    above = np.where(positive, _ranks(scores), 0.0).sum(axis=-1) - ones * (ones + 1) / 2
    return _ratio(above, ones * zeros, undefined=np.nan)


def _ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=-1), np.float64)


def _centred(values: Floats) -> Floats:
    """Return deviations from the mean scaled to at most 1, so that products neither overflow nor vanish."""
    constant = (values == values[..., :1]).all(axis=-1, keepdims=True)
    deviations = np.where(constant, 0.0, values - values.mean(axis=-1, keepdims=True))
    largest = np.abs(deviations).max(axis=-1, keepdims=True)
    return np.asarray(np.divide(deviations, largest, out=np.zeros_like(deviations), where=largest > 0))


def _ratio(above: Floats, below: Floats, *, undefined: float = 0.0) -> Floats:
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.asarray(np.divide(above, below, out=np.full(above.shape, undefined), where=below > 0))
