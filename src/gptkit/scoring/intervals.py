"""95% confidence intervals of a measure, and of its difference between two models, from the items of one evaluation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gptkit.scoring.measures import Columns, MeanOfItems, Measure, RightOrWrong, value_of
from gptkit.scoring.resampling import Floats, bootstrap_error

TAIL = 0.025
RESAMPLES = 1_000

Interval = tuple[float, float]


def item_interval(measure: Measure, columns: Columns) -> Interval | None:
    """Return the interval of a measure over two or more items; None where it is not defined, or they do not vary.

    Wilson's for an accuracy ("Probable inference, the law of succession, and statistical inference", 1927), else from
    the standard error, with Student's quantile.
    """
    from scipy.stats import norm, t

    n, value = len(columns[measure.statistic.columns[0]]), value_of(measure, columns)
    if n < 2 or not math.isfinite(value):
        return None
    if measure.name == "accuracy":
        z = float(norm.isf(TAIL))
        middle = (value + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)
    half = float(t.isf(TAIL, n - 1)) * measure.statistic.stderr(columns)
    return (value - half, value + half) if 0 < half < math.inf else None


def paired_interval(measure: Measure, ours: Columns, theirs: Columns) -> Interval | None:
    """Return the interval of our measure minus theirs on the same items; None as for one model.

    For right or wrong answers it is Bonett and Price's ("Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", 2012), widened to zero where McNemar's exact two-sided test finds nothing.
    Otherwise it comes from the paired bootstrap standard error, with Student's quantile.
    """
    from scipy.stats import binom, norm, t

    if not all(math.isfinite(value_of(measure, columns)) for columns in (ours, theirs)):
        return None
    scores = measure.statistic.scores(theirs, ours, 0.0)
    before, after = np.asarray(scores.baseline, np.float64), np.asarray(scores.present, np.float64)
    n = len(before)
    if isinstance(scores, RightOrWrong):
        gained, lost = int((after > before).sum()), int((after < before).sum())
        found = (gained - lost) / (n + 2)
        half = float(norm.isf(TAIL)) * math.sqrt(((gained + lost + 2) / (n + 2) - found * found) / (n + 2))
        if binom.cdf(min(gained, lost), gained + lost, 0.5) >= TAIL:
            return min(0.0, found - half), max(0.0, found + half)
        return found - half, found + half
    if n < 2:
        return None

    def difference(chosen: NDArray[np.int64]) -> Floats:
        if isinstance(scores, MeanOfItems):
            return np.asarray((after - before)[chosen].mean(axis=-1))
        true = np.asarray(scores.references, np.float64)[chosen]
        return scores.metric(after[chosen], true) - scores.metric(before[chosen], true)

    found = float(difference(np.arange(n)[None])[0])
    half = float(t.isf(TAIL, n - 1)) * float(bootstrap_error(difference, n, resamples=RESAMPLES))
    return (found - half, found + half) if 0 < half < math.inf else None
