"""Tests of "the metric did not drop" on two runs over the same items, and how many such tests share one risk.

Right or wrong: the exact conditional test of McNemar ("Note on the sampling error of the difference between correlated
proportions", 1947), one-sided. Not its mid-p form, which rejects more often than its level for some numbers of
disagreements: a gate promises a bound. The rest: the drop in units of its paired bootstrap standard error (Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 6) against Student's distribution. Not the share of the
resamples beyond 0, which for 50 items with heavy tails rejects too often, and which cannot go below one in the number
of resamples, as Holm's levels for many metrics must.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.scoring.resampling import Floats, bootstrap_error

# Half and four fifths of what is promised (1% a metric, 5% a suite): room for the approximation of the bootstrap.
GATE_LEVEL = 0.005
SUITE_LEVEL = 0.04
RESAMPLES = 2_000


def mcnemar(lost: Any, gained: Any) -> Any:
    """Return P(Binomial(lost + gained, 1/2) >= lost), of numbers or arrays of items turned wrong and turned right."""
    from scipy.stats import binom

    return binom.sf(np.asarray(lost) - 1, np.asarray(lost) + np.asarray(gained), 0.5)


def bootstrap_means(drops: Floats, *, resamples: int = RESAMPLES) -> Floats:
    """Return the p-value (column,) of "no drop on average" for drops (item, column); one draw serves all columns."""
    n = len(drops)

    def means(chosen: NDArray[np.int64]) -> Floats:
        rows = np.arange(len(chosen))[:, None]
        counts = np.bincount((chosen + n * rows).ravel(), minlength=chosen.size).reshape(chosen.shape)
        return np.asarray(counts.astype(np.float64) @ drops / n)  # (resample, column)

    error = bootstrap_error(means, n, resamples=resamples)
    return np.asarray(student(drops.mean(axis=0), error, n, np.count_nonzero(drops, axis=0)))


def student(drop: Any, error: Any, n: int, changed: Any) -> Any:
    """Return the p-value of a drop with this standard error, where the scores of `changed` of n items differ.

    It is never below 2 ** -changed: were the two runs alike, so often would chance turn all these items one way (the
    least p-value of Fisher's randomisation test, "The Design of Experiments", 1935, section 21).
    """
    from scipy.stats import t

    scaled = np.divide(drop, error, out=np.where(np.asarray(drop) > 0, np.inf, -np.inf), where=np.asarray(error) > 0)
    return np.maximum(t.sf(scaled, max(1, n - 1)), 0.5 ** np.asarray(changed, np.float64))


def strictest_level(metrics: int) -> float:
    """Return the level of Holm's first step, which the smallest p-value of so many metrics must meet."""
    return min(GATE_LEVEL, SUITE_LEVEL / metrics)


def significant(p_values: Any) -> NDArray[np.bool_]:
    """Return which p-values (..., metric) count, in each row on its own.

    Holm's step-down ("A simple sequentially rejective multiple test procedure", 1979) at SUITE_LEVEL bounds the risk of
    any false alarm; no step is laxer than GATE_LEVEL, which bounds the risk of each metric alone.
    """
    values = np.asarray(p_values, np.float64)
    order = values.argsort(axis=-1, kind="stable")
    levels = np.minimum(GATE_LEVEL, SUITE_LEVEL / np.arange(values.shape[-1], 0, -1))  # (metric,)
    met = np.logical_and.accumulate(np.take_along_axis(values, order, axis=-1) <= levels, axis=-1)
    result = np.empty(values.shape, np.bool_)
    np.put_along_axis(result, order, met, axis=-1)
    return result
