"""The measures of evaluated items (accuracy, perplexity, BLEU, ...): their values, standard errors, units and floors.

Columns of items, each (item,):
    correct                                 1 for a right answer, else 0
    nll                                     nats, summed over the item's target
    tokens, words, bytes, characters        how many of them the item's original text has
    prediction, reference                   classes or scores
    score                                   of class 1, for references 0 or 1
    confidence                              probability of the prediction, along with `correct`
    impossible                              number of choices that could not be scored, if an item has any
    exact_match, answer_f1, rouge1, ...     0 to 1, to be averaged
    unicode_words, unicode_rouge1, ...      by the words of text/words.py, where the published rule finds none
    bleu_matches_1, ...                     counts to be summed, see resampling.corpus_bleu
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptkit.errors import InputError
from gptkit.scoring import resampling
from gptkit.scoring.protocols import Items
from gptkit.scoring.resampling import BLEU_COLUMNS, Floats, PairStatistic, bootstrap_error, corpus_bleu

Columns = Mapping[str, Floats]
Unit = Literal["percent", "perplexity", "bits", "correlation", "points"]
_RESAMPLES = 1_000  # for a standard error


@dataclass(frozen=True)
class TwoRuns:
    """What the gate compares: the same items (item,) in two runs. A drop below `floor` does not count."""

    baseline: ArrayLike
    present: ArrayLike
    floor: float


class RightOrWrong(TwoRuns):
    """An accuracy: 1 for each item that was right, else 0."""


class MeanOfItems(TwoRuns):
    """A mean of values that are better when higher, such as the log-probabilities of texts."""


@dataclass(frozen=True)
class MetricOfPairs(TwoRuns):
    """A metric of all predictions and references (item,) at once that is better when higher."""

    references: ArrayLike
    metric: PairStatistic


Scores = RightOrWrong | MeanOfItems | MetricOfPairs


class Statistic(ABC):
    """A function of the items' `columns`; those in `asked` describe the questions, so both runs must agree on them."""

    columns: tuple[str, ...]
    asked: tuple[str, ...] = ()

    @abstractmethod
    def value(self, columns: Columns) -> float:
        """Return the statistic of at least one item; not finite if it is undefined or too large."""

    @abstractmethod
    def stderr(self, columns: Columns) -> float:
        """Return the standard error of the value over at least two items."""

    def undefined(self, columns: Columns) -> str:
        """Return why the value of finite columns is not finite."""
        return "not defined for these items"

    def scores(self, baseline: Columns, present: Columns, floor: float) -> Scores:
        """Return what the gate compares; `floor` is in the unit of the value."""
        raise NotImplementedError(f"{type(self).__name__} is reported, not gated")

    def in_unit(self, drop: float, baseline: Columns) -> float:
        """Convert a drop of the scores into a drop of the value from the baseline's; inf if it is too large."""
        return drop


class Mean(Statistic):
    """The mean of a column; `binary` if its values are 0 and 1."""

    def __init__(self, column: str, *, binary: bool = False) -> None:
        self.columns = (column,)
        self.column, self.binary = column, binary

    def value(self, columns: Columns) -> float:
        return float(columns[self.column].mean())

    def stderr(self, columns: Columns) -> float:
        return _error_of_mean(columns[self.column])

    def scores(self, baseline: Columns, present: Columns, floor: float) -> Scores:
        kind = RightOrWrong if self.binary else MeanOfItems
        return kind(baseline[self.column], present[self.column], floor)


class Rate(Statistic):
    """The nats of all items per unit (None: per item), in bits or, as a perplexity, exponentiated.

    The gate compares rates, of which a perplexity is a monotonic function, as means over the items of
    nats / units * items: the units are the same in both runs.
    """

    def __init__(self, units: str | None, *, perplexity: bool) -> None:
        self.asked = (units,) if units else ()
        self.columns = ("nll", *self.asked)
        self.units, self.perplexity = units, perplexity

    def value(self, columns: Columns) -> float:
        rate = float(self._parts(columns).mean())
        return float(np.exp(rate)) if self.perplexity else rate

    def stderr(self, columns: Columns) -> float:
        """Linearise the ratio of sums (Cochran, "Sampling Techniques", 1977, section 2.11)."""
        parts = self._parts(columns)
        weights = columns[self.units] / columns[self.units].mean() if self.units else 1.0
        error = _error_of_mean(parts - parts.mean() * weights)
        return error * self.value(columns) if self.perplexity else error

    def undefined(self, columns: Columns) -> str:
        units = (self.units or "items").replace("_", " ")
        if self.units and not columns[self.units].any():
            return f"the text has no {units}"
        return f"exp({self._parts(columns).mean():,.0f} nats per {units.removesuffix('s')}) overflows"

    def scores(self, baseline: Columns, present: Columns, floor: float) -> Scores:
        if self.perplexity:
            floor = math.log1p(floor / self.value(baseline))
        return MeanOfItems(-self._parts(baseline), -self._parts(present), floor)

    def in_unit(self, drop: float, baseline: Columns) -> float:
        return float(self.value(baseline) * np.expm1(drop)) if self.perplexity else drop

    def _parts(self, columns: Columns) -> Floats:
        """Return values (item,) whose mean is the rate."""
        nats = columns["nll"] if self.perplexity else columns["nll"] / math.log(2)
        return np.asarray(nats / columns[self.units].mean() if self.units else nats)


class OfPairs(Statistic):
    """A function of a column of predictions and one of references, such as a correlation.

    `rows` computes it along the last axis; `metric` names the metric of metrics.py that gives its value, by default
    `rows` does.
    """

    def __init__(
        self, rows: PairStatistic, metric: str | None = None, *, columns: tuple[str, str] = ("prediction", "reference")
    ) -> None:
        self.columns, self.asked = columns, columns[1:]
        self.rows, self.metric = rows, metric

    def value(self, columns: Columns) -> float:
        predictions, references = (columns[name] for name in self.columns)
        if self.metric is None:
            return float(self.rows(predictions, references))
        from gptkit.scoring.metrics import compute  # takes seconds

        return compute(self.metric, predictions, references)

    def stderr(self, columns: Columns) -> float:
        return _bootstrap(self.rows, *(columns[name] for name in self.columns))

    def undefined(self, columns: Columns) -> str:
        alike = [f"all {name}s are {columns[name][0]:g}" for name in self.columns if np.ptp(columns[name]) == 0]
        return " and ".join(alike) or "the predictions or the references hardly vary"

    def scores(self, baseline: Columns, present: Columns, floor: float) -> Scores:
        prediction, reference = self.columns
        return MetricOfPairs(baseline[prediction], present[prediction], floor, present[reference], self.rows)


class Bleu(Statistic):
    """BLEU of a corpus, 0 to 100.

    For resampling, a prediction is the number of a text of either run and a reference the number of an item. A text
    that is paired with another item matches nothing.
    """

    columns = BLEU_COLUMNS

    def value(self, columns: Columns) -> float:
        return float(corpus_bleu(_counts(columns).sum(axis=0)))

    def stderr(self, columns: Columns) -> float:
        counts = _counts(columns)
        items = np.arange(float(len(counts)))
        return _bootstrap(_bleu_rows(counts, len(counts)), items, items)

    def scores(self, baseline: Columns, present: Columns, floor: float) -> Scores:
        before, after = _counts(baseline), _counts(present)
        n = len(before)
        items = np.arange(float(n))
        texts = np.where((before != after).any(axis=1), items + n, items)
        return MetricOfPairs(items, texts, floor, items, _bleu_rows(np.concatenate([before, after]), n))


class MostConfident(Statistic):
    """The accuracy on a fraction of the items, those that the model is most confident about."""

    columns = ("confidence", "correct")

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction

    def value(self, columns: Columns) -> float:
        weights = resampling.most_confident(columns["confidence"], self.fraction)
        return float((weights * columns["correct"]).sum() / weights.sum())

    def stderr(self, columns: Columns) -> float:
        count = float(resampling.most_confident(columns["confidence"], self.fraction).sum())
        accuracy = self.value(columns)
        return math.sqrt(max(0.0, accuracy * (1 - accuracy)) / (count - 1)) if count > 1 else math.nan


def _error_of_mean(values: Floats) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _bootstrap(rows: PairStatistic, predictions: Floats, references: Floats) -> float:
    def values(chosen: NDArray[np.int64]) -> Floats:
        return rows(predictions[chosen], references[chosen])

    return float(bootstrap_error(values, len(references), resamples=_RESAMPLES))


def _counts(columns: Columns) -> Floats:
    return np.stack([columns[name] for name in BLEU_COLUMNS], axis=-1)  # (item, column)


def _bleu_rows(counts: Floats, n: int) -> PairStatistic:
    """Return BLEU along the last axis, given the counts (text, column) of n items' texts, of one run or two."""

    def rows(predictions: Floats, references: Floats) -> Floats:
        texts = predictions.astype(np.int64)
        own = texts % n == references
        sums = []
        for name, column in zip(BLEU_COLUMNS, counts.T, strict=True):
            of_text = column[texts]
            sums.append((of_text * own if name.startswith("bleu_matches") else of_text).sum(axis=-1))
        return corpus_bleu(np.stack(sums, axis=-1))

    return rows


@dataclass(frozen=True)
class Measure:
    """A statistic with its name, the unit to show it in, and its floor: the smallest drop that counts, positive.

    `floor` is in the measure's unit, or with `relative` a fraction of the baseline's value; None: never gated.
    `per_token`: values of different tokenizers are not comparable.
    """

    name: str
    statistic: Statistic
    unit: Unit
    floor: float | None
    higher_is_better: bool = True
    relative: bool = False
    per_token: bool = False

    @property
    def label(self) -> str:
        """The name as tables show it."""
        return re.sub(r"(.*) (top \d+) percent", r"\2% \1", self.name.replace("_", " "))

    def floor_below(self, baseline: float) -> float:
        """Return the floor in the measure's unit for a baseline value."""
        if self.floor is None:
            raise ValueError(f"{self.name} is not gated")
        return self.floor * baseline if self.relative else self.floor

    def shown(self, value: float | None) -> str:
        """Format a value for people: fractions in percent, perplexities and bits as they are."""
        if value is None:
            return "n/a"
        if self.unit == "percent":
            return f"{100 * value:.2f}%"
        if abs(value) >= 1e9:
            return f"{value:.3e}"
        if abs(value) >= 1000:
            return f"{value:,.1f}"
        return f"{value:.4g}" if self.unit == "perplexity" else f"{value:.4f}"


_FRACTION = 0.02  # two points: less does not distinguish two models in a paper's table
_CORRELATION = 0.02  # two points, as GLUE's tables report correlations times 100
_PERPLEXITY = 0.01  # of the baseline: 0.01 nats per unit at any perplexity
_BITS = 0.01  # the last digit of bits per byte and per character in papers
_ROUGE = 0.01  # one point
_BLEU = 0.5  # half a point: papers claim gains of one


def _perplexity(name: str, units: str | None, *, per_token: bool = False) -> Measure:
    statistic = Rate(units, perplexity=True)
    return Measure(name, statistic, "perplexity", _PERPLEXITY, False, relative=True, per_token=per_token)


ROUGE = ("rouge", "rouge1", "rouge2", "rougeL")
_CALIBRATION_ERROR = OfPairs(resampling.calibration_error, columns=("confidence", "correct"))
MEASURES = {
    measure.name: measure
    for measure in (
        Measure("accuracy", Mean("correct", binary=True), "percent", _FRACTION),
        _perplexity("token_perplexity", "tokens", per_token=True),
        _perplexity("word_perplexity", "words"),
        Measure("unicode_word_perplexity", Rate("unicode_words", perplexity=True), "perplexity", None, False),
        _perplexity("perplexity", None),
        Measure("bits_per_byte", Rate("bytes", perplexity=False), "bits", _BITS, higher_is_better=False),
        Measure("bits_per_character", Rate("characters", perplexity=False), "bits", _BITS, higher_is_better=False),
        Measure("matthews", OfPairs(resampling.matthews_rows, "matthews"), "correlation", _CORRELATION),
        Measure("f1", OfPairs(resampling.f1_rows, "f1"), "percent", _FRACTION),
        Measure("pearson", OfPairs(resampling.pearson_rows, "pearson"), "correlation", _CORRELATION),
        Measure("spearman", OfPairs(resampling.spearman_rows, "spearman"), "correlation", _CORRELATION),
        Measure("auc", OfPairs(resampling.auc_rows, columns=("score", "reference")), "percent", _FRACTION),
        Measure("calibration_error", _CALIBRATION_ERROR, "percent", None, higher_is_better=False),
        Measure("accuracy_top_1_percent", MostConfident(0.01), "percent", None),
        Measure("accuracy_top_10_percent", MostConfident(0.1), "percent", None),
        Measure("exact_match", Mean("exact_match"), "percent", _FRACTION),
        Measure("answer_f1", Mean("answer_f1"), "percent", _FRACTION),
        Measure("unicode_answer_f1", Mean("unicode_answer_f1"), "percent", None),
        *(Measure(name, Mean(name), "percent", _ROUGE) for name in ROUGE),
        *(Measure(f"unicode_{name}", Mean(f"unicode_{name}"), "percent", None) for name in ROUGE),
        Measure("bleu", Bleu(), "points", _BLEU),
    )
}


def measure(names: Sequence[str], items: Items, values: Mapping[str, float] = {}) -> dict[str, dict[str, Any]]:
    """Return value, stderr (None for a single item) and higher_is_better of each measure by name.

    A measure that is not defined has no value, but a `reason`; where the items have its columns by Unicode's words,
    the measure of these follows it. `values` holds values computed before. InputError, with the measure's name,
    without items or if the model's own figures are not finite.
    """
    found = {}
    for published in names:
        for name in (published, f"unicode_{published}"):
            kind = MEASURES.get(name)
            if kind and (name == published or items.columns.keys() >= {*kind.statistic.columns}):
                value = values[name] if name in values else value_of(kind, items.columns)
                found[name] = _entry(kind, value, items.columns, items.undefined)
    return found


def breakdown(names: Sequence[str], items: Items) -> dict[str, dict[str, dict[str, Any]]]:
    """Return n and metrics of every part of `items.groups`: group -> part -> {"n", "metrics"}.

    A measure that is not defined, such as an area under the curve for a part with only one class, is as in `measure`.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for group, parts in items.groups.items():
        members = np.asarray(parts)
        found[group] = {}
        for part in sorted(set(parts)):
            columns = {name: column[members == part] for name, column in items.columns.items()}
            of_part = replace(items, ids=(part,) * parts.count(part), columns=columns)
            found[group][part] = {"n": parts.count(part), "metrics": measure(names, of_part)}
    return found


def value_of(measure: Measure, columns: Columns) -> float:
    """Return the value of a measure, not finite if it is not defined; InputError without items."""
    if not len(columns[measure.statistic.columns[0]]):
        raise InputError(f"{measure.name} of no items", fix="pass data with at least one example")
    with np.errstate(all="ignore"):  # an overflow is reported as not finite
        return measure.statistic.value(columns)


def _entry(measure: Measure, value: float, columns: Columns, undefined: Mapping[str, str]) -> dict[str, Any]:
    own = {name: columns[name] for name in measure.statistic.columns}
    if not all(np.isfinite(column).all() for column in own.values()):
        raise InputError(f"{measure.name} is {value}: the model's own figures are not finite", fix="check its weights")
    with np.errstate(all="ignore"):
        reason = undefined.get(measure.name, "" if math.isfinite(value) else measure.statistic.undefined(columns))
        if reason:
            return {"value": None, "stderr": None, "higher_is_better": measure.higher_is_better, "reason": reason}
        stderr = measure.statistic.stderr(columns) if len(next(iter(own.values()))) > 1 else math.nan
    return {
        "value": value,
        "stderr": stderr if math.isfinite(stderr) else None,
        "higher_is_better": measure.higher_is_better,
    }
