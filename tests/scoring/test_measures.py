from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from gptkit.errors import InputError
from gptkit.evaluate.gate.gate import gate
from gptkit.scoring import metrics
from gptkit.scoring.measures import MEASURES, MostConfident, breakdown, measure, value_of
from gptkit.scoring.protocols import Items
from gptkit.scoring.resampling import (
    BLEU_COLUMNS,
    auc_rows,
    calibration_error,
    corpus_bleu,
    f1_rows,
    matthews_rows,
    most_confident,
    pearson_rows,
    spearman_rows,
)

Array = np.ndarray


def items(groups: Mapping[str, tuple[str, ...]] | None = None, **columns: object) -> Items:
    arrays = {name: np.asarray(column, np.float64) for name, column in columns.items()}
    n = len(next(iter(arrays.values())))
    return Items(tuple(map(str, range(n))), arrays, groups or {})


def test_values_in_closed_form() -> None:
    units = {"tokens": [2, 6], "words": [1, 3], "bytes": [8, 24], "characters": [4, 4]}
    both = items(nll=[math.log(2), math.log(8)], **units)  # 4 ln 2 in total
    names = ("token_perplexity", "word_perplexity", "bits_per_byte", "bits_per_character", "perplexity")
    values = {name: entry["value"] for name, entry in measure(names, both).items()}
    assert values == pytest.approx(
        {
            "token_perplexity": 2 ** (4 / 8),
            "word_perplexity": 2.0,
            "bits_per_byte": 4 / 32,
            "bits_per_character": 4 / 8,
            "perplexity": 4.0,  # the geometric mean of 2 and 8
        }
    )
    assert not any(MEASURES[name].higher_is_better for name in names)
    assert measure(["accuracy"], items(correct=[1, 1, 0, 1]))["accuracy"] == {
        "value": 0.75,
        "stderr": pytest.approx(math.sqrt(0.75 * 0.25 / 3)),
        "higher_is_better": True,
    }


def test_the_standard_error_of_a_perplexity_is_that_of_its_bootstrap() -> None:
    random = np.random.default_rng(3)
    words = random.integers(50, 400, 300)
    nll = words * random.normal(3.0, 0.4, 300)
    chosen = random.integers(0, 300, (4000, 300))
    values = np.exp(nll[chosen].sum(1) / words[chosen].sum(1))
    found = measure(["word_perplexity"], items(nll=nll, words=words))["word_perplexity"]
    assert found["stderr"] == pytest.approx(values.std(), rel=0.08)


def test_a_gate_sees_the_drop_of_a_perplexity_in_its_own_unit() -> None:
    """Every item is worse by 0.01 nats per word: the perplexity grows by a factor of e ** 0.01; the floor is 1%."""
    words = np.arange(100.0, 140.0)
    nll = 3.0 * words + np.sin(np.arange(40))
    before, after = ({"nll": one, "words": words} for one in (nll, nll + 0.01 * words))
    perplexity = MEASURES["word_perplexity"]
    value = value_of(perplexity, before)
    scores = perplexity.statistic.scores(before, after, perplexity.floor_below(value))
    assert scores.floor == pytest.approx(math.log(1.01))
    found = gate({"a": scores}, resamples=100)["a"]
    assert found.drop == pytest.approx(0.01)
    assert perplexity.statistic.in_unit(found.drop, before) == pytest.approx(value_of(perplexity, after) - value)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("f1", f1_rows),
        ("matthews", matthews_rows),
        ("pearson", pearson_rows),
        ("spearman", spearman_rows),
    ],
)
@pytest.mark.parametrize("classes", [2, 3, 1000])
def test_metrics_of_many_rows_are_those_of_each(name: str, rows: Callable[..., Array], classes: int) -> None:
    if name == "matthews" and classes == 1000:
        pytest.skip("classes, not scores")
    random = np.random.default_rng(classes)
    predictions, references = random.integers(0, classes, (2, 3, 20, 30)).astype(np.float64)
    predictions = np.where(random.random((3, 20, 30)) < 0.5, references, predictions)
    predictions[0, 0] = references[0, 1] = 1.0  # constant rows
    expected = [
        [metrics.compute(name, x, y) for x, y in zip(*sides, strict=True)]
        for sides in zip(predictions, references, strict=True)
    ]
    assert rows(predictions, references) == pytest.approx(np.array(expected), abs=1e-12, nan_ok=True)


def test_area_under_the_curve_by_hand_and_by_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    assert auc_rows(np.array([0.9, 0.4, 0.4, 0.1]), np.array([1.0, 1, 0, 0])) == 3.5 / 4
    random = np.random.default_rng(5)
    references = (random.random((6, 50)) < 0.4).astype(np.float64)
    scores = np.round(random.random((6, 50)) + 0.3 * references, 1)
    expected = [roc_auc_score(y, x) for x, y in zip(scores, references, strict=True)]
    assert auc_rows(scores, references) == pytest.approx(expected)


def test_calibration_by_hand() -> None:
    confidence, correct = np.array([0.95, 0.95, 0.5, 0.5]), np.array([1.0, 0, 1, 0])
    assert calibration_error(confidence, correct) == pytest.approx((abs(1.9 - 1) + 0) / 4)
    assert calibration_error(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.0
    # 1/15 is in the first bin, anything above in the second: their gaps do not cancel
    assert calibration_error(np.array([1 / 15, 0.07]), np.array([0.0, 1.0])) == pytest.approx((1 / 15 + 0.93) / 2)
    ordered, right = np.linspace(0.01, 1, 100), np.arange(100) >= 95
    columns = {"confidence": ordered, "correct": right}
    assert [MostConfident(fraction).value(columns) for fraction in (0.01, 0.1, 1.0)] == [1.0, 0.5, 0.05]
    assert most_confident(np.array([0.5, 0.5, 0.9, 0.1]), 0.5).tolist() == [0.5, 0.5, 1.0, 0.0]  # a tie splits it


def bleu_items(rows: Array) -> Items:
    return items(**dict(zip(BLEU_COLUMNS, np.asarray(rows).T, strict=True)))


def test_bleu_by_hand() -> None:
    rows = np.array([[3, 2, 1, 0, 4, 3, 2, 1, 4, 5], [2, 1, 0, 0, 3, 2, 1, 0, 3, 3]], np.float64)
    precisions = [5 / 7, 3 / 5, 1 / 3, 0.5 / 1]  # no 4-gram matches: counted as half of one
    expected = 100 * math.exp(1 - 8 / 7) * math.prod(precisions) ** 0.25
    assert measure(["bleu"], bleu_items(rows))["bleu"]["value"] == pytest.approx(expected)
    assert corpus_bleu(np.zeros(10)) == 0.0


def test_bleu_is_that_of_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    random = np.random.default_rng(9)
    words = ["the", "a", "cat", "dog", "sat", "ran", "on", "in", "mat", "house", "big", "red"]
    for words_each in (2, 4, 12):
        references = [" ".join(random.choice(words, words_each)) for _ in range(20)]
        texts = [" ".join(random.choice(words, words_each + 1)) for _ in references[5:]] + references[:5][::-1]
        scorer = sacrebleu.BLEU(force=True)
        rows = []
        for text, reference in zip(texts, references, strict=True):
            one = scorer.corpus_score([text], [[reference]])
            rows.append([*one.counts, *one.totals, one.sys_len, one.ref_len])
        expected = scorer.corpus_score(texts, [references]).score
        assert corpus_bleu(np.sum(rows, axis=0, dtype=np.float64)) == pytest.approx(expected)


def test_a_gate_of_bleu_finds_texts_without_a_match_and_passes_the_same_ones() -> None:
    random = np.random.default_rng(2)
    totals = np.array([20, 19, 18, 17])
    matches = random.binomial(totals, [0.6, 0.4, 0.3, 0.2], (200, 4))
    rows = np.hstack([matches, np.tile([*totals, 20, 20], (200, 1))]).astype(np.float64)
    worse = rows.copy()
    worse[:60, :4] = 0
    before, after = bleu_items(rows).columns, bleu_items(worse).columns
    statistic = MEASURES["bleu"].statistic
    found = [gate({"a": statistic.scores(before, present, 0.5)}, resamples=200)["a"] for present in (after, before)]
    assert [one.verdict for one in found] == ["fail", "pass"]
    assert found[0].drop == pytest.approx(value_of(MEASURES["bleu"], before) - value_of(MEASURES["bleu"], after))


def test_what_is_not_defined_has_a_reason_and_leaves_the_other_figures_alone() -> None:
    found = measure(["perplexity", "word_perplexity"], items(nll=[1e4, 2e4], words=[0, 0]))
    reasons = ["exp(15,000 nats per item) overflows", "the text has no words"]
    assert [entry.pop("reason") for entry in found.values()] == reasons
    assert [*found.values()] == [{"value": None, "stderr": None, "higher_is_better": False}] * 2
    found = measure(
        ["auc", "pearson", "accuracy"], items(score=[1, 2], prediction=[2, 2], reference=[1, 1], correct=[1, 0])
    )
    assert [entry.get("reason") for entry in found.values()] == [
        "all references are 1",
        "all predictions are 2 and all references are 1",
        None,
    ]
    assert found["accuracy"]["value"] == 0.5
    assert measure(["accuracy"], items(correct=[1]))["accuracy"]["stderr"] is None


def test_only_a_model_whose_own_figures_are_not_finite_is_blamed() -> None:
    with pytest.raises(InputError, match="accuracy of no items"):
        measure(["accuracy"], items(correct=[]))
    with pytest.raises(InputError, match=r"the model's own figures are not finite - check its weights"):
        measure(["perplexity"], items(nll=[1.0, math.inf]))


def test_the_breakdown_is_of_every_part() -> None:
    groups = {"kind": ("a", "b", "b", "a")}
    found = breakdown(
        ["accuracy", "auc"], items(groups, correct=[1, 0, 1, 1], score=[1, 2, 3, 0], reference=[1, 1, 0, 1])
    )
    assert found["kind"]["a"]["n"] == 2
    assert found["kind"]["a"]["metrics"]["accuracy"]["value"] == 1.0
    assert found["kind"]["b"]["metrics"]["accuracy"]["value"] == 0.5
    assert [found["kind"][part]["metrics"]["auc"]["value"] for part in "ab"] == [None, 0.0]


def test_every_measure_that_is_gated_has_a_positive_floor_and_scores_of_identical_runs_that_pass() -> None:
    random = np.random.default_rng(1)
    n = 60
    columns = {name: random.random(n) for name in ("score", "exact_match", "answer_f1", "confidence", "nll")}
    columns |= {name: random.random(n) for name in ("rouge1", "rouge2", "rougeL", "rouge")}
    columns |= {name: random.integers(1, 9, n) * 1.0 for name in ("tokens", "words", "bytes", "characters")}
    columns |= {name: random.integers(0, 2, n) * 1.0 for name in ("correct", "prediction", "reference")}
    columns |= {name: 20 - np.arange(10.0)[[place]].repeat(n) for place, name in enumerate(BLEU_COLUMNS)}
    columns |= {
        name: random.random(n) + 1
        for measure in MEASURES.values()
        for name in measure.statistic.columns
        if name.startswith("unicode_")
    }
    for name, one in MEASURES.items():
        assert math.isfinite(value_of(one, columns))
        if one.floor is not None:
            assert one.floor_below(1.0) > 0
            scores = one.statistic.scores(columns, columns, 0.01)
            assert gate({name: scores}, resamples=50)[name].verdict == "pass"
