from __future__ import annotations

import numpy as np
import pytest

from gptkit.errors import NothingComparable
from gptkit.evaluate.gate.detectable import mean_drop
from gptkit.evaluate.gate.gate import GATE_LEVEL, bootstrap_means, gate, mcnemar, significant, student, worst
from gptkit.scoring.measures import MeanOfItems, MetricOfPairs, RightOrWrong, Scores
from gptkit.scoring.resampling import bootstrap_error, f1_rows, pearson_rows

STUDIES = 2000
Array = np.ndarray


def accuracies(
    random: np.random.Generator, n: int, flips: float, drop: float = 0.0, floor: float = 0.0
) -> RightOrWrong:
    """Return runs of which the second flips items either way alike, and turns `drop` of them wrong besides."""
    baseline = random.random(n) < 0.6
    chance = np.where(baseline, (flips / 2 + drop) / 0.6, flips / 2 / 0.4)
    return RightOrWrong(baseline, baseline ^ (random.random(n) < chance), floor)


def likelihoods(random: np.random.Generator, n: int, drop: float = 0.0, floor: float = 0.0) -> MeanOfItems:
    """Return log-likelihoods of documents that differ by noise with heavy tails."""
    baseline = -random.gamma(9.0, 0.35, n)
    return MeanOfItems(baseline, baseline - 0.1 * random.standard_t(3, n) - drop, floor)


def correlations(random: np.random.Generator, n: int, foreign: float = 0.0, floor: float = 0.0) -> MetricOfPairs:
    """Return two noisy predictors of one reference; `foreign` of the second's predictions belong to other items."""
    references = random.normal(size=n)
    common = 0.85 * references + 0.5 * random.normal(size=n)
    baseline, present = (common + 0.2 * random.normal(size=n) for _ in range(2))
    present = np.where(random.random(n) < foreign, random.permutation(present), present)
    return MetricOfPairs(baseline, present, floor, references, pearson_rows)


def one(scores: Scores, resamples: int = 200) -> tuple[str, float, float | None]:
    found = gate({"task/protocol.metric": scores}, resamples=resamples)["task/protocol.metric"]
    return found.verdict, found.p_value, found.minimum_detectable


def test_p_values_by_hand() -> None:
    assert mcnemar(8, 2) == pytest.approx((45 + 10 + 1) / 1024)
    assert mcnemar(0, 0) == 1.0
    assert bootstrap_means(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])).tolist() == [0.125, 1.0]


def test_mean_p_value_is_that_of_the_paired_t_test() -> None:
    from scipy.stats import ttest_1samp

    drops = np.random.default_rng(2).normal(0.2, 1.0, (80, 4))
    expected = ttest_1samp(drops, 0.0, alternative="greater").pvalue
    assert bootstrap_means(drops, resamples=20_000) == pytest.approx(expected, rel=0.1)


def test_holm_by_hand() -> None:
    assert significant([0.0012, 0.0009, 0.5, 0.0051] + [0.9] * 6).tolist() == [True, True] + [False] * 8
    assert significant([0.0045, 0.0039] + [0.9] * 8).tolist() == [False, True] + [False] * 8  # 0.04 / 10, then 0.04 / 9
    assert significant([[0.0051], [0.005]]).tolist() == [[False], [True]]


@pytest.mark.parametrize("n", [1, 2, 50, 1000])
def test_identical_items_pass_whatever_n(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    suite: dict[str, Scores] = {
        "a": RightOrWrong(values > 0, values > 0, 0.0),
        "b": MeanOfItems(values, values, 0.0),
    }
    if n > 2:
        suite["c"] = MetricOfPairs(values, values, 0.0, values**3, pearson_rows)
    found = gate(suite, resamples=100)
    assert {(entry.p_value, entry.drop, entry.verdict) for entry in found.values()} == {(1.0, 0.0, "pass")}


def test_verdicts_of_one_metric() -> None:
    def runs(lost: int, gained: int, n: int) -> tuple[Array, Array]:
        baseline = np.arange(n) < n // 2
        present = baseline.copy()
        present[:lost], present[n - gained :] = False, True
        return baseline, present

    assert one(RightOrWrong(*runs(30, 5, 1000), 0.02))[0] == "fail"
    assert one(RightOrWrong(*runs(20, 0, 1000), 0.02))[0] == "fail"  # the floor itself counts
    assert one(RightOrWrong(*runs(30, 5, 1000), 0.05))[0] == "pass"  # significant, but too small to count
    assert one(RightOrWrong(*runs(5, 1, 100), 0.02))[0] == "inconclusive"  # large enough, but may be chance
    assert one(RightOrWrong(*runs(10, 10, 100), 0.02))[0] == "inconclusive"  # too few items for two points
    assert one(RightOrWrong(*runs(5, 60, 200), 0.02))[0] == "pass"  # much better: two points worse is far away
    assert one(RightOrWrong(*runs(1, 0, 5), 0.02)) == ("inconclusive", 0.5, None)


def test_a_lower_nll_is_better_and_one_failure_fails_the_suite() -> None:
    random = np.random.default_rng(4)
    drop, same = likelihoods(random, 400, 0.05, 0.01), likelihoods(random, 400, 0.0, 0.1)
    found = gate({"lm/worse.nll": drop, "lm/same.nll": same}, resamples=500)
    verdicts = [entry.verdict for entry in found.values()]
    assert verdicts == ["fail", "pass"]
    assert worst(verdicts) == "fail"
    assert found == gate({"lm/worse.nll": drop, "lm/same.nll": same}, resamples=500)
    assert one(MeanOfItems(drop.present, drop.baseline, 0.1))[0] == "pass"


def test_a_metric_of_whole_arrays_works_on_resamples() -> None:
    random = np.random.default_rng(8)
    references = random.integers(0, 2, 60)
    present = np.where(random.random(60) < 0.4, 1 - references, references)
    scores = MetricOfPairs(references, present, 0.02, references, f1_rows)
    assert one(scores, resamples=50)[0] == "fail"


def test_unusable_scores_are_errors() -> None:
    with pytest.raises(NothingComparable):
        gate({})
    with pytest.raises(ValueError, match=r"a: .* item 1 is not finite"):
        gate({"a": MeanOfItems([1.0, 2.0], [1.0, np.nan], 0.0)})
    with pytest.raises(ValueError, match="the baseline has 2 items, but the current run 1"):
        gate({"a": RightOrWrong([1, 0], [1], 0.0)})
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        gate({"a": RightOrWrong([1, 0.5], [1, 0], 0.0)})


def unchanged_accuracies(random: np.random.Generator, n: int, flips: float) -> Array:
    lost, gained, _ = random.multinomial(n, [flips / 2, flips / 2, 1 - flips], STUDIES).T
    return np.asarray(mcnemar(lost, gained))


def unchanged_likelihoods(random: np.random.Generator, n: int) -> Array:
    return bootstrap_means(random.standard_t(3, (n, STUDIES)), resamples=500)


def unchanged_correlations(random: np.random.Generator, n: int) -> Array:
    return np.array([p_of_correlation(correlations(random, n)) for _ in range(STUDIES)])


def p_of_correlation(scores: MetricOfPairs) -> float:
    baseline, present, true = (np.asarray(x) for x in (scores.baseline, scores.present, scores.references))
    error = bootstrap_error(
        lambda chosen: pearson_rows(baseline[chosen], true[chosen]) - pearson_rows(present[chosen], true[chosen]),
        len(true),
        resamples=100,
    )
    return float(student(pearson_rows(baseline, true) - pearson_rows(present, true), error, len(true), len(true)))


def false_alarms(columns: list[Array]) -> tuple[Array, float]:
    """Return the share of studies in which each metric fails alone, and in which any of the suite does."""
    p_values = np.stack(columns, axis=1)  # (study, metric)
    return (p_values <= GATE_LEVEL).mean(axis=0), significant(p_values).any(axis=1).mean()  # a floor only lowers them


def test_without_change_one_gate_in_a_hundred_fails_at_most_and_one_suite_in_twenty() -> None:
    random = np.random.default_rng(11)
    cases = [(50, 0.2), (277, 0.02), (277, 0.2), (872, 0.06), (1043, 0.1), (5000, 0.1), (9815, 0.12)]
    columns = [unchanged_accuracies(random, n, flips) for n, flips in cases]
    columns += [unchanged_likelihoods(random, n) for n in (50, 200, 800)]
    alone, together = false_alarms(columns)
    assert (alone <= 0.01).all(), alone
    assert 0.005 < together <= 0.05


@pytest.mark.slow
def test_without_change_correlations_fail_as_seldom() -> None:
    random = np.random.default_rng(11)
    columns = [unchanged_accuracies(random, 277, 0.2) for _ in range(4)]
    columns += [unchanged_correlations(random, n) for n in (50, 120, 50, 120, 50, 120)]
    alone, together = false_alarms(columns)
    assert (alone <= 0.01).all(), alone
    assert 0.005 < together <= 0.05


def share_found(make: object, n: int, floor: float, studies: int, **options: float) -> float:
    random = np.random.default_rng(n)
    found = 0
    for _ in range(studies):
        minimum = one(make(random, n, floor=floor, **options))[2]  # type: ignore[operator]
        assert minimum is not None
        found += one(make(random, n, drop=minimum, floor=floor, **options))[0] == "fail"  # type: ignore[operator]
    return found / studies


@pytest.mark.parametrize(
    ("n", "flips", "floor"), [(50, 0.02, 0.0), (277, 0.2, 0.02), (1000, 0.06, 0.03), (5000, 0.1, 0.01)]
)
def test_a_drop_of_an_accuracy_at_the_printed_minimum_is_found(n: int, flips: float, floor: float) -> None:
    random, found = np.random.default_rng(n), []
    for _ in range(10):
        minimum = one(accuracies(random, n, flips, floor=floor))[2]
        assert minimum is not None
        rates = [flips / 2 + minimum, flips / 2, 1 - flips - minimum]
        lost, gained, _ = random.multinomial(n, rates, 200).T
        found.append((mcnemar(lost, gained) <= GATE_LEVEL) & (lost - gained >= floor * n - 1e-9))
    assert np.mean(found) >= 0.8


def test_a_drop_of_an_nll_at_the_printed_minimum_is_found() -> None:
    assert share_found(likelihoods, 50, 0.0, 100) >= 0.8


@pytest.mark.parametrize(("n", "floor"), [(50, 0.0), (300, 0.02), (5000, 0.01)])
def test_a_drop_of_an_nll_is_found_in_many_studies(n: int, floor: float) -> None:
    studies = 400 if n < 5000 else 150
    random = np.random.default_rng(n)
    unchanged, worse = 0.1 * random.standard_t(3, (2, n, studies))
    found = [mean_drop(drops, level=GATE_LEVEL, floor=floor).by_gate for drops in unchanged.T]
    worse = worse + np.array(found, np.float64)  # (item, study)
    fails = (bootstrap_means(worse, resamples=200) <= GATE_LEVEL) & (worse.mean(axis=0) >= floor)
    assert fails.mean() >= 0.8


@pytest.mark.parametrize("n", [120, pytest.param(600, marks=pytest.mark.slow)])
def test_a_drop_of_a_correlation_at_the_printed_minimum_is_found(n: int) -> None:
    random = np.random.default_rng(n)
    true = 0.85 / np.sqrt(0.85**2 + 0.5**2 + 0.2**2)
    found = []
    for _ in range(12):
        minimum = one(correlations(random, n), resamples=50)[2]
        assert minimum is not None
        found += [p_of_correlation(correlations(random, n, minimum / true)) <= GATE_LEVEL for _ in range(25)]
    assert np.mean(found) >= 0.8
