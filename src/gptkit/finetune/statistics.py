"""What a few seeds tell: mean and spread, and an interval for the mean of a metric or of a difference.

Resampling n values underestimates the spread of their mean by sqrt((n - 1) / n), and a normal quantile is too small
for few of them. So the intervals reach out to the tails whose normal quantile is sqrt(n / (n - 1)) times Student's (the
expanded percentile interval: Hesterberg, "What Teachers Should Know About the Bootstrap", 2015). With normal values a
95% interval so covers the true mean in about 95 of 100 studies of 30 seeds; of 5 seeds in about 92, for it never
leaves the range of the values, and all 5 lie on one side of their true mean once in 16 studies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gptkit.scoring.resampling import resampled

LEVEL = 0.95
RESAMPLES = 10_000


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (n - 1 in the denominator; NaN for a single value)."""
    array = np.asarray(values, np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan")


def bootstrap_interval(
    values: Sequence[float], *, level: float = LEVEL, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the ends of the interval for the mean, a pure function; ValueError for fewer than two values."""
    from scipy.stats import norm, t

    array = np.asarray(values, np.float64)
    n = len(array)
    if n < 2:
        raise ValueError("an interval needs two values or more")
    means = np.concatenate([array[chosen].mean(axis=1) for chosen in resampled(n, resamples)])  # (resample,)
    tail = float(norm.cdf(np.sqrt(n / (n - 1)) * t.ppf((1 - level) / 2, n - 1)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def paired_interval(
    ours: Sequence[float], theirs: Sequence[float], *, level: float = LEVEL, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the interval for the mean of ours - theirs, where the same place is the same seed."""
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    return bootstrap_interval(differences, level=level, resamples=resamples)
