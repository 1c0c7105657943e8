"""Power of the gate: the smallest true drop it detects with 80% power, given how much two runs disagree anyway.

The disagreement is itself estimated from n items, so its upper 80% confidence limit is used, with a power of 85%.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gptkit.scoring.resampling import Floats, PairStatistic, resampled, uniform

_POWER = 0.85
_CONFIDENCE = 0.8
_PLANTED = 200  # resamples for each planted fraction
_FRACTIONS = 12
_HALVINGS = 13


class Detectable(NamedTuple):
    """The smallest drop detected by the test, and by test and floor together; None if no drop has the power."""

    by_test: float | None
    by_gate: float | None


@lru_cache(maxsize=4096)
def accuracy_drop(n: int, flips: int, accuracy: float, *, level: float, floor: float) -> Detectable:
    """Return the smallest drop of an accuracy, when `flips` of n items changed between right and wrong.

    The drop is added to random flips: items turn right at rate noise / 2 and wrong at rate noise / 2 + drop. noise is
    Clopper and Pearson's upper limit (Biometrika 26, 1934). No drop exceeds the accuracy.
    """
    from scipy.stats import beta

    noise = float(beta.ppf(_CONFIDENCE, flips + 1, n - flips)) if flips < n else 1.0

    def smallest(floor: float) -> float | None:
        def found(drop: float) -> bool:
            return mcnemar_power(n, noise, drop, level=level, floor=floor) >= _POWER

        return _bisect(found, min(accuracy, 1 - noise))

    return Detectable(smallest(0.0), smallest(floor))


def mcnemar_power(n: int, noise: float, drop: float, *, level: float, floor: float) -> float:
    """Return the probability that enough items turn wrong for test and floor, summed over the number of flips."""
    from scipy.stats import binom

    rate = noise + drop
    spread = 8 * math.sqrt(n * rate) + 8
    flips = np.arange(max(0, math.floor(n * rate - spread)), min(n, math.ceil(n * rate + spread)) + 1)
    by_test = binom.isf(level, flips, 0.5) + 1  # the fewest turned wrong that are significant
    by_floor = np.ceil((flips + math.ceil(floor * n - 1e-9)) / 2)
    lost = np.maximum(by_test, by_floor)
    return float((binom.pmf(flips, n, rate) * binom.sf(lost - 1, flips, (noise / 2 + drop) / rate)).sum())


def mean_drop(drops: Floats, *, level: float, floor: float) -> Detectable:
    """Return the smallest drop of a mean, from the drops of two or more items (item,).

    With Student's quantiles c of the level and b of the power, a drop is detected if it exceeds c standard errors (and
    the floor) by b more. A drop seldom hits all items alike: it adds as much to their spread as to their mean.
    """
    n = len(drops)
    if 0.5**n > level:  # not significant even if all n items turn worse
        return Detectable(None, None)
    critical, margin = _quantiles(n, level)
    variance = float(drops.var(ddof=1)) * _variance_limit(n)

    def smallest(floor: float) -> float | None:
        def found(drop: float) -> bool:
            error = math.sqrt((variance + drop * drop) / n)
            return drop >= max(critical * error, floor) + margin * error

        slack = 1 - (critical + margin) / math.sqrt(n)
        most = 1.01 * (floor + (critical + margin) * math.sqrt(variance / n)) / slack if slack > 0 else 0.0
        return _bisect(found, most)  # if any drop is detected, this one is

    return Detectable(smallest(0.0), smallest(floor))


def metric_drop(
    metric: PairStatistic,
    present: Floats,
    references: Floats,
    baseline: Floats,
    *,
    level: float,
    floor: float,
) -> Detectable:
    """Return the smallest drop of a higher-is-better metric over all items.

    Drops are planted in resampled items: a fraction of them gets the predictions of other items. The mean loss of the
    metric is the drop; its standard deviation over the resamples is the standard error.
    """
    n = len(references)
    if 0.5**n > level:  # not significant even if all n items turn worse
        return Detectable(None, None)
    critical, margin = _quantiles(n, level)
    drops, errors = _planted(metric, present, references, baseline)
    errors = errors * math.sqrt(_variance_limit(n) * n / (n - 1))

    def smallest(floor: float) -> float | None:
        excess = drops - np.maximum(critical * errors, floor) - margin * errors
        if not (excess >= 0).any():
            return None
        first = int((excess >= 0).argmax())
        if first == 0:
            return float(drops[0])
        near = slice(first - 1, first + 1)
        return float(np.interp(0.0, excess[near], drops[near]))

    return Detectable(smallest(0.0), smallest(floor))


def _planted(metric: PairStatistic, present: Floats, references: Floats, baseline: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard deviation (fraction,) of the drops that more and more foreign predictions make."""
    n = len(references)
    chosen = np.concatenate(list(resampled(n, _PLANTED, stream=1)))  # (resample, item)
    foreign = np.concatenate(list(resampled(n, _PLANTED, stream=2)))
    ranks = uniform(_PLANTED * n, stream=3).reshape(_PLANTED, n)
    true = references[chosen]
    before = metric(baseline[chosen], true)  # (resample,)
    own, others = present[chosen], present[foreign]
    unplanted = np.nanmean(metric(own, true))
    drops, errors = [], []
    for fraction in np.geomspace(1 / n, 1, _FRACTIONS):
        after = metric(np.where(ranks < fraction, others, own), true)
        drops.append(unplanted - np.nanmean(after))
        errors.append(np.nanstd(before - after))
    return np.array(drops), np.array(errors)


def _quantiles(n: int, level: float) -> tuple[float, float]:
    """Return Student's quantiles of the level and of the power."""
    from scipy.stats import t

    return float(t.isf(level, n - 1)), float(t.ppf(_POWER, n - 1))


def _variance_limit(n: int) -> float:
    """Return the ratio of the upper confidence limit of a normal variance to its estimate."""
    from scipy.stats import chi2

    return float((n - 1) / chi2.ppf(1 - _CONFIDENCE, n - 1))


def _bisect(found: Callable[[float], bool], most: float) -> float | None:
    """Return the smallest drop that is detected, to within most / 2 ** 13; None if not even `most` is."""
    if not found(most):
        return None
    least = 0.0
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        least, most = (least, middle) if found(middle) else (middle, most)
    return most
