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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptkit.errors import NothingComparable
from gptkit.evaluate.gate import detectable, paired_tests
from gptkit.evaluate.gate.detectable import Detectable
from gptkit.evaluate.gate.paired_tests import RESAMPLES
from gptkit.scoring.measures import MeanOfItems, MetricOfPairs, RightOrWrong, Scores
from gptkit.scoring.resampling import Floats, bootstrap_error

Verdict = Literal["pass", "fail", "inconclusive"]
_ROUNDING = 1e-9  # of the floor: a drop of 2 in 100 items meets a floor of 0.02


@dataclass(frozen=True)
class Finding:
    """What a gate finds of one metric: its drop, positive for the worse, and the p-value of "no drop" before Holm's
    correction.

    minimum_detectable is the smallest true drop this gate fails 80% of the time (None: none that it could have found).
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
    """Return what is found of every metric ("task/protocol.metric"): a pure function.

    NothingComparable without metrics; ValueError, with the key, for scores that are not finite, or do not match.
    """
    if not suite:
        raise NothingComparable("no metric is in both runs", fix="evaluate the tasks of the baseline")
    level = paired_tests.strictest_level(len(suite))
    tests = {key: _test(key, scores, level=level, resamples=resamples) for key, scores in suite.items()}
    significant = paired_tests.significant([test.p_value for test in tests.values()])
    findings = {}
    for (key, test), counts in zip(tests.items(), significant, strict=True):
        verdict = _verdict(test, suite[key].floor, significant=bool(counts))
        findings[key] = Finding(test.drop, test.p_value, test.detectable.by_gate, verdict)
    return findings


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on a suite: fail if one fails, else inconclusive if one is, else pass."""
    order: tuple[Verdict, ...] = ("pass", "inconclusive", "fail")
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
        raise ValueError(f"{key}: {len(baseline)} items of the baseline do not match {len(present)}")
    if isinstance(scores, RightOrWrong):
        return _test_accuracy(key, scores, baseline, present, level=level)
    if isinstance(scores, MeanOfItems):
        return _test_mean(scores, baseline, present, level=level, resamples=resamples)
    return _test_metric(scores, baseline, present, level=level, resamples=resamples)


def _items(key: str, values: ArrayLike) -> Floats:
    array: Floats = np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{key}: the score of item {int((~np.isfinite(array)).argmax())} is not finite")
    return array


def _test_accuracy(key: str, scores: RightOrWrong, baseline: Floats, present: Floats, *, level: float) -> _Test:
    if not np.isin([baseline, present], (0, 1)).all():
        raise ValueError(f"{key}: right or wrong is 1 or 0")
    n, lost, gained = len(baseline), int((baseline > present).sum()), int((baseline < present).sum())
    found = detectable.accuracy_drop(n, lost + gained, float(baseline.mean()), level=level, floor=scores.floor)
    return _Test((lost - gained) / n, float(paired_tests.mcnemar(lost, gained)), found, lost + gained == 0)


def _test_mean(scores: MeanOfItems, baseline: Floats, present: Floats, *, level: float, resamples: int) -> _Test:
    drops = baseline - present if scores.higher_is_better else present - baseline
    found = detectable.mean_drop(drops, level=level, floor=scores.floor)
    p_value = float(paired_tests.bootstrap_means(drops[:, None], resamples=resamples)[0])
    return _Test(float(drops.mean()), p_value, found, not drops.any())


def _test_metric(scores: MetricOfPairs, baseline: Floats, present: Floats, *, level: float, resamples: int) -> _Test:
    metric, references = scores.metric, np.asarray(scores.references, np.float64)

    def drops(chosen: NDArray[np.int64]) -> Floats:
        true = references[chosen]
        return metric(baseline[chosen], true) - metric(present[chosen], true)

    found = detectable.metric_drop(metric, present, references, baseline, level=level, floor=scores.floor)
    drop, n = float(metric(baseline, references)) - float(metric(present, references)), len(references)
    error = float(bootstrap_error(drops, n, resamples=resamples))
    p_value = float(paired_tests.student(drop, error, n, np.count_nonzero(baseline != present)))
    return _Test(drop, p_value, found, np.array_equal(baseline, present))
