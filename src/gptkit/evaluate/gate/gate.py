"""Paired significance tests: is a run worse than its baseline on the same items? Pass, fail or inconclusive.

fail          the observed drop is significant (after Holm's correction over the suite) and at least the floor
pass          the drop is below the floor, and one of the floor's size would have been found; or all items are identical
inconclusive  the drop reaches the floor but may be chance; or the items are too few, or differ too much, for the floor

"Would have been found": by the test alone, with 80% power at the level of Holm's first step. An observed improvement
adds to the floor, because the test had to detect the whole way from there down to the floor. The null hypothesis is no
drop at all, and the floor applies to the observed drop: McNemar's test stays exact, and the gate fails an unchanged
model at a rate no higher than its level. With a floor of 0 every drop counts, and no number of items can rule one out.

The tests of "no drop":
- Right or wrong: McNemar's exact conditional test ("Note on the sampling error of the difference between correlated
  proportions", 1947), one-sided. Its mid-p form exceeds its level for some numbers of disagreements, and a gate
  promises a bound.
- Other metrics: the drop over its paired bootstrap standard error (Efron and Tibshirani, "An Introduction to the
  Bootstrap", 1993, chapter 6), against Student's t. The fraction of resamples beyond 0 rejects too often for 50 items
  with heavy tails, and cannot fall below 1 / resamples, as Holm's levels for many metrics must.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptkit.errors import NothingComparable
from gptkit.evaluate.gate import detectable
from gptkit.evaluate.gate.detectable import Detectable
from gptkit.scoring.measures import MeanOfItems, RightOrWrong, Scores
from gptkit.scoring.resampling import Floats, bootstrap_error

Verdict = Literal["pass", "inconclusive", "n/a", "fail"]  # n/a: a figure is not defined
_ROUNDING = 1e-9  # of the floor: a drop of 2 in 100 items meets a floor of 0.02
# Half and four fifths of the promised levels (1% a metric, 5% a suite), as the bootstrap is approximate.
GATE_LEVEL = 0.005
SUITE_LEVEL = 0.04
RESAMPLES = 2_000


@dataclass(frozen=True)
class Finding:
    """The gate's finding on one metric: its drop (positive = worse) and the p-value of "no drop" before Holm's
    correction.

    minimum_detectable is the smallest true drop that fails this gate 80% of the time; None if no drop would.
    """

    drop: float
    p_value: float
    minimum_detectable: float | None
    verdict: Verdict


class _Test(NamedTuple):
    drop: float
    p_value: float
    detectable: Detectable
    identical: bool


def gate(suite: Mapping[str, Scores], *, resamples: int = RESAMPLES) -> dict[str, Finding]:
    """Return the finding on every metric ("task/protocol.metric").

    NothingComparable without metrics; ValueError, with the key, for scores that are not finite or differ in number.
    """
    if not suite:
        raise NothingComparable("no metric is in both runs", fix="evaluate the tasks of the baseline")
    level = min(GATE_LEVEL, SUITE_LEVEL / len(suite))  # Holm's first step
    tests = {key: _test(key, scores, level=level, resamples=resamples) for key, scores in suite.items()}
    findings = {}
    for (key, test), counts in zip(tests.items(), significant([test.p_value for test in tests.values()]), strict=True):
        verdict = _verdict(test, suite[key].floor, significant=bool(counts))
        findings[key] = Finding(test.drop, test.p_value, test.detectable.by_gate, verdict)
    return findings


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on a suite: fail if any fails, else n/a if any is, else inconclusive if any is, else pass."""
    order: tuple[Verdict, ...] = get_args(Verdict)
    return max(verdicts, key=order.index, default="pass")


def _verdict(test: _Test, floor: float, *, significant: bool) -> Verdict:
    if test.identical:
        return "pass"
    if test.drop > 0 and test.drop >= floor * (1 - _ROUNDING):
        return "fail" if significant else "inconclusive"
    resolution = test.detectable.by_test
    return "pass" if resolution is not None and resolution <= floor + max(-test.drop, 0.0) else "inconclusive"


def _test(key: str, scores: Scores, *, level: float, resamples: int) -> _Test:
    baseline, present = _items(key, scores.baseline), _items(key, scores.present)
    if baseline.shape != present.shape:
        raise ValueError(f"{key}: the baseline has {len(baseline)} items, but the current run {len(present)}")
    n, floor = len(baseline), scores.floor
    if isinstance(scores, RightOrWrong):
        if not np.isin([baseline, present], (0, 1)).all():
            raise ValueError(f"{key}: a score is neither 0 nor 1")
        lost, gained = int((baseline > present).sum()), int((baseline < present).sum())
        found = detectable.accuracy_drop(n, lost + gained, float(baseline.mean()), level=level, floor=floor)
        return _Test((lost - gained) / n, float(mcnemar(lost, gained)), found, lost + gained == 0)
    if isinstance(scores, MeanOfItems):
        differences = baseline - present
        found = detectable.mean_drop(differences, level=level, floor=floor)
        p_value = float(bootstrap_means(differences[:, None], resamples=resamples)[0])
        return _Test(float(differences.mean()), p_value, found, not differences.any())
    metric, references = scores.metric, np.asarray(scores.references, np.float64)

    def drops(chosen: NDArray[np.int64]) -> Floats:
        true = references[chosen]
        return metric(baseline[chosen], true) - metric(present[chosen], true)

    found = detectable.metric_drop(metric, present, references, baseline, level=level, floor=floor)
    drop = float(metric(baseline, references)) - float(metric(present, references))
    error = float(bootstrap_error(drops, n, resamples=resamples))
    p_value = float(student(drop, error, n, np.count_nonzero(baseline != present)))
    return _Test(drop, p_value, found, np.array_equal(baseline, present))


def _items(key: str, values: ArrayLike) -> Floats:
    array: Floats = np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{key}: the score of item {int((~np.isfinite(array)).argmax())} is not finite")
    return array


def mcnemar(lost: Any, gained: Any) -> Any:
    """Return P(Binomial(lost + gained, 1/2) >= lost), for numbers (or arrays) of items turned wrong and right."""
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
    """Return the p-value of a drop with this standard error, when the scores of `changed` of n items differ.

    It is at least 2 ** -changed, the probability that chance turns all of these items the same way: the smallest
    p-value of Fisher's randomization test ("The Design of Experiments", 1935, section 21).
    """
    from scipy.stats import t

    scaled = np.divide(drop, error, out=np.where(np.asarray(drop) > 0, np.inf, -np.inf), where=np.asarray(error) > 0)
    return np.maximum(t.sf(scaled, max(1, n - 1)), 0.5 ** np.asarray(changed, np.float64))


def significant(p_values: Any) -> NDArray[np.bool_]:
    """Return which p-values (..., metric) are significant, row by row.

    Holm's step-down procedure ("A simple sequentially rejective multiple test procedure", 1979) at SUITE_LEVEL bounds
    the risk of any false alarm; no step exceeds GATE_LEVEL, which bounds the risk of each metric.
    """
    values = np.asarray(p_values, np.float64)
    order = values.argsort(axis=-1, kind="stable")
    levels = np.minimum(GATE_LEVEL, SUITE_LEVEL / np.arange(values.shape[-1], 0, -1))  # (metric,)
    met = np.logical_and.accumulate(np.take_along_axis(values, order, axis=-1) <= levels, axis=-1)
    result = np.empty(values.shape, np.bool_)
    np.put_along_axis(result, order, met, axis=-1)
    return result
