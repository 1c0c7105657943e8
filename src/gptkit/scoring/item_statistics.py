"""Kinds of statistics of items: a value, its standard error, and what a gate compares of two runs.

Columns are a mapping from names to arrays (item,); `measures.py` tells which there are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptkit.scoring.resampled_metrics import BLEU_COLUMNS, accuracy_of_most_confident, corpus_bleu, most_confident
from gptkit.scoring.resampling import Floats, PairStatistic, bootstrap_error

Columns = Mapping[str, Floats]
_RESAMPLES = 1_000  # for a standard error


@dataclass(frozen=True)
class RightOrWrong:
    """What a gate compares of an accuracy: whether each item was right, 1 or 0 (item,), in both runs in one order.

    floor: the smallest drop that counts.
    """

    baseline: ArrayLike
    present: ArrayLike
    floor: float


@dataclass(frozen=True)
class MeanOfItems:
    """The same of a mean of per-item values (item,), such as the NLL of documents."""

    baseline: ArrayLike
    present: ArrayLike
    floor: float
    higher_is_better: bool


@dataclass(frozen=True)
class MetricOfPairs:
    """The same of a metric of all items at once that is better when higher, from predictions and references (item,)."""

    baseline: ArrayLike
    present: ArrayLike
    references: ArrayLike
    metric: PairStatistic
    floor: float


Scores = RightOrWrong | MeanOfItems | MetricOfPairs


class Statistic(ABC):
    """A function of items, made of `columns`; `asked` of them say what both runs were asked: they must be the same."""

    columns: tuple[str, ...]
    asked: tuple[str, ...] = ()

    @abstractmethod
    def value(self, columns: Columns) -> float:
        """Return the statistic of one item or more; not finite where it is not defined, or too large."""

    @abstractmethod
    def stderr(self, columns: Columns) -> float:
        """Return the standard error of the value, of two items or more."""

    def scores(self, baseline: Columns, present: Columns, floor: float) -> Scores:
        """Return what a gate compares, the floor being in the unit of the value."""
        raise NotImplementedError(f"{type(self).__name__} is reported, not gated")

    def in_unit(self, drop: float, baseline: Columns) -> float:
        """Return a drop of the scores as one of the value, from that of the baseline; inf where it is too large."""
        return drop


class Mean(Statistic):
    """The mean of a column; `binary`: of 0 and 1, a share."""

    def __init__(self, column: str, *, binary: bool = False) -> None:
        self.columns = (column,)
        self.column, self.binary = column, binary

    def value(self, columns: Columns) -> float:
        return float(columns[self.column].mean())

    def stderr(self, columns: Columns) -> float:
        return _error_of_mean(columns[self.column])

    def scores(self, baseline: Columns, present: Columns, floor: float) -> Scores:
        before, after = baseline[self.column], present[self.column]
        if self.binary:
            return RightOrWrong(before, after, floor)
        return MeanOfItems(before, after, floor, higher_is_better=True)


class Rate(Statistic):
    """The nats of all items over their units (None: an item is one): in bits, or as a perplexity, e to their power.

    A gate compares rates, of which a perplexity is a monotone function, as means over the items: of nats / units *
    items, the units being the same in both runs.
    """

    def __init__(self, units: str | None, *, perplexity: bool) -> None:
        self.asked = (units,) if units else ()
        self.columns = ("nll", *self.asked)
        self.units, self.perplexity = units, perplexity

    def value(self, columns: Columns) -> float:
        rate = float(self._parts(columns).mean())
        if not self.perplexity:
            return rate
        return float(np.exp(rate))

    def stderr(self, columns: Columns) -> float:
        """Of a ratio of sums by its linearisation (Cochran, "Sampling Techniques", 1977, section 2.11)."""
        parts = self._parts(columns)
        weights = columns[self.units] / columns[self.units].mean() if self.units else 1.0
        error = _error_of_mean(parts - parts.mean() * weights)
        return error * self.value(columns) if self.perplexity else error

    def scores(self, baseline: Columns, present: Columns, floor: float) -> Scores:
        if self.perplexity:
            floor = math.log1p(floor / self.value(baseline))
        return MeanOfItems(self._parts(baseline), self._parts(present), floor, higher_is_better=False)

    def in_unit(self, drop: float, baseline: Columns) -> float:
        return float(self.value(baseline) * np.expm1(drop)) if self.perplexity else drop

    def _parts(self, columns: Columns) -> Floats:
        """Return values (item,) whose mean is the rate."""
        nats = columns["nll"] if self.perplexity else columns["nll"] / math.log(2)
        return np.asarray(nats / columns[self.units].mean() if self.units else nats)


class OfPairs(Statistic):
    """A function of a column of predictions and one of references, such as a correlation.

    `rows_among` makes it along the last axis, given values among which are all that occur. `metric` names the metric
    of metrics.py whose value it is; without one the rows give it.
    """

    def __init__(
        self,
        rows_among: Callable[[Floats], PairStatistic],
        metric: str | None = None,
        *,
        columns: tuple[str, str] = ("prediction", "reference"),
    ) -> None:
        self.columns, self.asked = columns, columns[1:]
        self.rows_among, self.metric = rows_among, metric

    def value(self, columns: Columns) -> float:
        predictions, references = (columns[name] for name in self.columns)
        if self.metric is None:
            return float(self.rows_among(references)(predictions, references))
        from gptkit.scoring.metrics import compute  # takes seconds

        return compute(self.metric, predictions, references)

    def stderr(self, columns: Columns) -> float:
        predictions, references = (columns[name] for name in self.columns)
        return _bootstrap(self.rows_among(np.concatenate([predictions, references])), predictions, references)

    def scores(self, baseline: Columns, present: Columns, floor: float) -> Scores:
        prediction, reference = self.columns
        before, after, references = baseline[prediction], present[prediction], present[reference]
        rows = self.rows_among(np.concatenate([before, after, references]))
        return MetricOfPairs(before, after, references, rows, floor)


class Bleu(Statistic):
    """BLEU of a corpus, 0 to 100.

    For the bootstrap a prediction is the number of a text of either run, a reference that of an item. An item that is
    given another's text matches nothing.
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
        return MetricOfPairs(items, texts, items, _bleu_rows(np.concatenate([before, after]), n), floor)


class MostConfident(Statistic):
    """The accuracy of the most confident share of the items."""

    columns = ("confidence", "correct")

    def __init__(self, share: float) -> None:
        self.share = share

    def value(self, columns: Columns) -> float:
        return accuracy_of_most_confident(columns["confidence"], columns["correct"], self.share)

    def stderr(self, columns: Columns) -> float:
        count, accuracy = float(most_confident(columns["confidence"], self.share).sum()), self.value(columns)
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
    """Return BLEU along the last axis for texts whose counts (text, column) are those of n items, of one run or two."""

    def rows(predictions: Floats, references: Floats) -> Floats:
        texts = predictions.astype(np.int64)
        own = texts % n == references
        sums = []
        for name, column in zip(BLEU_COLUMNS, counts.T, strict=True):
            of_text = column[texts]
            sums.append((of_text * own if name.startswith("bleu_matches") else of_text).sum(axis=-1))
        return corpus_bleu(np.stack(sums, axis=-1))

    return rows
