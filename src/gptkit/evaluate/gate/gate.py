"""Whether a run is worse than its baseline on the same items: pass, fail or inconclusive.

fail          the drop is significant (after Holm's correction over the suite) and, as observed, at least the floor
pass          it is below the floor, and one of the floor's size would have been found; or all items are identical
inconclusive  it reaches the floor but may be chance; or the items are too few, or disagree too much, for the floor

"Would have been found": by the test alone, with 80% power at the level of Holm's first step. An improvement adds to
the floor, for the way from the observed value down to the floor is what the test had to see. The test asks for any
drop, and the floor applies to the drop observed: so McNemar's test stays exact, and a gate without change fails at
most as often as its level. A floor of 0 counts every drop, so that no number of items shows there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptkit.errors import NothingComparable
from gptkit.evaluate.gate import detectable, paired_tests
from gptkit.evaluate.gate.detectable import Detectable, RowMetric
from gptkit.evaluate.gate.paired_tests import RESAMPLES, Floats

Verdict = Literal["pass", "fail", "inconclusive"]
_ROUNDING = 1e-9  # of the floor: a drop of 2 in 100 items meets a floor of 0.02


@dataclass(frozen=True)
class RightOrWrong:
    """An accuracy: whether each item was right, 1 or 0 (item,), in one order; floor: the smallest drop that counts."""

    baseline: ArrayLike
    present: ArrayLike
    floor: float


@dataclass(frozen=True)
class MeanOfItems:
    """A mean of per-item values (item,), such as the NLL of documents."""

    baseline: ArrayLike
    present: ArrayLike
    floor: float
    higher_is_better: bool


@dataclass(frozen=True)
class MetricOfPairs:
    """A metric of all items at once, such as a correlation, from predictions and references (item,).

    `metric` works along the last axis: (..., item) twice -> (...). `rowwise` makes one of a function of (item,).
    """

    baseline: ArrayLike
    present: ArrayLike
    references: ArrayLike
    metric: RowMetric
    floor: float
    higher_is_better: bool = True


Scores = RightOrWrong | MeanOfItems | MetricOfPairs


@dataclass(frozen=True)
class Comparison:
    """One metric; difference = value - baseline. p_value is of "no drop", before Holm's correction.

    minimum_detectable is the smallest true drop this gate fails 80% of the time (None: none that it could have found).
    """

    baseline: float
    value: float
    difference: float
    p_value: float
    minimum_detectable: float | None
    verdict: Verdict


@dataclass(frozen=True)
class GateResult:
    """All metrics of a suite; fail if one fails, else inconclusive if one is, else pass."""

    comparison: Mapping[str, Comparison]
    verdict: Verdict


@dataclass(frozen=True)
class _Measured:
    baseline: float
    value: float
    difference: float
    drop: float  # the difference, positive for the worse
    p_value: float
    detectable: Detectable
    identical: bool


def rowwise(metric: Any) -> RowMetric:
    """Return a function along the last axis from one of predictions (item,) and references (item,)."""
    return np.vectorize(metric, signature="(item),(item)->()", otypes=[np.float64])


def gate(suite: Mapping[str, Scores], *, resamples: int = RESAMPLES) -> GateResult:
    """Return the comparison of every metric ("task/protocol.metric"), and the verdict on all: a pure function.

    NothingComparable without metrics; ValueError, with the key, for scores that are not finite, or do not match.
    """
    if not suite:
        raise NothingComparable("no metric is in both runs", fix="evaluate the tasks of the baseline")
    level = paired_tests.strictest_level(len(suite))
    measured = {key: _measure(key, scores, level=level, resamples=resamples) for key, scores in suite.items()}
    counts = paired_tests.significant([one.p_value for one in measured.values()])
    comparison = {
        key: Comparison(
            baseline=one.baseline,
            value=one.value,
            difference=one.difference,
            p_value=one.p_value,
            minimum_detectable=one.detectable.by_gate,
            verdict=_verdict(one, suite[key].floor, significant=bool(counted)),
        )
        for (key, one), counted in zip(measured.items(), counts, strict=True)
    }
    return GateResult(comparison, _overall({one.verdict for one in comparison.values()}))


def _overall(verdicts: set[Verdict]) -> Verdict:
    if "fail" in verdicts:
        return "fail"
    return "inconclusive" if "inconclusive" in verdicts else "pass"


def reaches(drop: float, floor: float) -> bool:
    """Return whether a drop counts: rounding does not save it."""
    return drop >= floor * (1 - _ROUNDING)


def _verdict(one: _Measured, floor: float, *, significant: bool) -> Verdict:
    if one.identical:
        return "pass"
    if one.drop > 0 and reaches(one.drop, floor):
        return "fail" if significant else "inconclusive"
    resolution = one.detectable.by_test
    return "pass" if resolution is not None and resolution <= floor + max(-one.drop, 0.0) else "inconclusive"


def _measure(key: str, scores: Scores, *, level: float, resamples: int) -> _Measured:
    baseline, present = _items(key, scores.baseline), _items(key, scores.present)
    if baseline.shape != present.shape:
        raise ValueError(f"{key}: {len(baseline)} items of the baseline do not match {len(present)}")
    if not scores.floor >= 0:
        raise ValueError(f"{key}: the floor {scores.floor} is not 0 or more")
    if isinstance(scores, RightOrWrong):
        return _accuracy(key, scores, baseline, present, level=level)
    if isinstance(scores, MeanOfItems):
        return _mean(scores, baseline, present, level=level, resamples=resamples)
    return _metric(key, scores, baseline, present, level=level, resamples=resamples)


def _items(key: str, values: ArrayLike) -> Floats:
    array: NDArray[np.float64] = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{key}: scores of shape {array.shape} are not one value an item")
    if not np.isfinite(array).all():
        raise ValueError(f"{key}: the score of item {int((~np.isfinite(array)).argmax())} is not finite")
    return array


def _accuracy(key: str, scores: RightOrWrong, baseline: Floats, present: Floats, *, level: float) -> _Measured:
    if not np.isin([baseline, present], (0, 1)).all():
        raise ValueError(f"{key}: right or wrong is 1 or 0")
    n, before, after = len(baseline), float(baseline.mean()), float(present.mean())
    lost, gained = int((baseline > present).sum()), int((baseline < present).sum())
    found = detectable.accuracy_drop(n, lost + gained, before, level=level, floor=scores.floor)
    p_value = float(paired_tests.mcnemar(lost, gained))
    return _Measured(before, after, (gained - lost) / n, (lost - gained) / n, p_value, found, lost + gained == 0)


def _mean(scores: MeanOfItems, baseline: Floats, present: Floats, *, level: float, resamples: int) -> _Measured:
    drops = baseline - present if scores.higher_is_better else present - baseline
    found = detectable.mean_drop(drops, level=level, floor=scores.floor)
    p_value = float(paired_tests.bootstrap_means(drops[:, None], resamples=resamples)[0])
    before, after = float(baseline.mean()), float(present.mean())
    return _Measured(before, after, after - before, float(drops.mean()), p_value, found, not drops.any())


def _metric(
    key: str, scores: MetricOfPairs, baseline: Floats, present: Floats, *, level: float, resamples: int
) -> _Measured:
    references = _items(key, scores.references)
    if references.shape != baseline.shape:
        raise ValueError(f"{key}: {len(references)} references do not match {len(baseline)} items")
    sign = 1.0 if scores.higher_is_better else -1.0

    def metric(predictions: Floats, true: Floats) -> Floats:
        return np.asarray(sign * scores.metric(predictions, true), np.float64)

    def drops(chosen: NDArray[np.int64]) -> Floats:
        true = references[chosen]
        return metric(baseline[chosen], true) - metric(present[chosen], true)

    before, after = float(scores.metric(baseline, references)), float(scores.metric(present, references))
    if not np.isfinite([before, after]).all():
        raise ValueError(f"{key}: the metric is {before} and {after}")
    found = detectable.metric_drop(metric, present, references, baseline, level=level, floor=scores.floor)
    drop, n = sign * (before - after), len(references)
    error = float(paired_tests.bootstrap_error(drops, n, resamples=resamples))
    p_value = float(paired_tests.student(drop, error, n, np.count_nonzero(baseline != present)))
    return _Measured(before, after, after - before, drop, p_value, found, np.array_equal(baseline, present))
