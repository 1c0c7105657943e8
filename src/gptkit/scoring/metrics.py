"""The metrics of GLUE (Wang et al. 2018, table 1): pure functions of predictions and references, each (example,).

Where a metric is not defined (one side is constant, or a class is never met), it is 0.0; what is not finite gives a
correlation of NaN.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = Sequence[float] | NDArray[Any]


def accuracy(predictions: Values, references: Values) -> float:
    """Return the share of examples whose prediction is the reference."""
    predicted, true = _arrays(predictions, references)
    return float((predicted == true).mean())


def f1(predictions: Values, references: Values) -> float:
    """Return the harmonic mean of precision and recall of class 1."""
    from sklearn.metrics import f1_score

    predicted, true = _arrays(predictions, references)
    return float(f1_score(true == 1, predicted == 1, zero_division=0.0))


def matthews(predictions: Values, references: Values) -> float:
    """Return Matthews' correlation coefficient, -1 to 1, of two or more classes."""
    from sklearn.metrics import matthews_corrcoef

    predicted, true = _arrays(predictions, references)
    if _is_constant(predicted) or _is_constant(true):
        return 0.0
    return float(matthews_corrcoef(true, predicted))


def pearson(predictions: Values, references: Values) -> float:
    """Return Pearson's linear correlation, -1 to 1."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, predictions, references)


def spearman(predictions: Values, references: Values) -> float:
    """Return Spearman's correlation of ranks, -1 to 1; equal values share their mean rank."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, predictions, references)


METRICS: Mapping[str, Callable[[Values, Values], float]] = {
    metric.__name__: metric for metric in (accuracy, f1, matthews, pearson, spearman)
}


def _arrays(predictions: Values, references: Values) -> tuple[NDArray[Any], NDArray[Any]]:
    predicted, true = np.asarray(predictions), np.asarray(references)
    if predicted.ndim != 1 or predicted.shape != true.shape or not len(true):
        raise ValueError(f"predictions of shape {predicted.shape} do not match references of shape {true.shape}")
    return predicted, true


def _is_constant(values: NDArray[Any]) -> bool:
    return bool((values == values[0]).all())


def _correlation(function: Callable[..., Any], predictions: Values, references: Values) -> float:
    predicted, true = _arrays(predictions, references)
    if _is_constant(predicted) or _is_constant(true):
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy's for inputs that are constant but for rounding
        return float(function(predicted.astype(np.float64), true.astype(np.float64)).statistic)
