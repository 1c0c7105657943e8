"""Kinds of statistics of items: a value, its standard error, and how a gate compares two runs by it.

Columns are a mapping from names to arrays (item,); `measures.py` tells which there are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptkit.evaluate.gate.detectable import RowMetric
from gptkit.evaluate.gate.gate import MeanOfItems, MetricOfPairs, RightOrWrong, Scores
from gptkit.evaluate.gate.paired_tests import Floats, bootstrap_error
from gptkit.scoring.calibration import accuracy_of_most_confident, calibration_error, most_confident
from gptkit.scoring.corpus_bleu import BLEU_COLUMNS, corpus_bleu

Columns = Mapping[str, Floats]
_RESAMPLES = 1_000


class Statistic(ABC):
    """A function of items, made of `columns`; `asked` of them say what both runs were asked: they must be the same."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]: ...

    @property
    def asked(self) -> tuple[str, ...]:
        return ()

    @abstractmethod
    def value(self, columns: Columns) -> float:
        """Return the statistic of one item or more; not finite where it is not defined, or too large."""

    @abstractmethod
    def stderr(self, columns: Columns) -> float:
        """Return the standard error of the value, of two items or more."""

    def scores(self, baseline: Columns, present: Columns, floor: float) -> Scores | None:
        """Return what a gate compares, the floor being in the unit of the value; None: it is reported only."""
        return None

    def in_unit(self, drop: float, baseline: Columns) -> float:
        """Return a drop of the scores as one of the value, from that of the baseline; inf where it is too large."""
        return drop


@dataclass(frozen=True)
class Mean(Statistic):
    """The mean of a column; `binary`: of 0 and 1, a share."""

    column: str
    binary: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def value(self, columns: Columns) -> float:
        return float(columns[self.column].mean())

    def stderr(self, columns: Columns) -> float:
        return _error_of_mean(columns[self.column])

    def scores(self, baseline: Columns, present: Columns, floor: float) -> Scores:
        before, after = baseline[self.column], present[self.column]
        if self.binary:
            return RightOrWrong(before, after, floor)
        return MeanOfItems(before, after, floor, higher_is_better=True)


@dataclass(frozen=True)
class Rate(Statistic):
    """The nats of all items over their units (None: an item is one): in bits, or as a perplexity, e to their power.

    A gate compares rates, of which a perplexity is a monotone function, as means over the items: of nats / units *
    items, the units being the same in both runs.
    """

    units: str | None
    perplexity: bool

    @property
    def columns(self) -> tuple[str, ...]:
        return ("nll", *self.asked)

    @property
    def asked(self) -> tuple[str, ...]:
        return (self.units,) if self.units else ()

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


@dataclass(frozen=True)
class OfPairs(Statistic):
    """A function of a column of predictions and one of references, such as a correlation.

    `rows` makes the same function along the last axis, given values among which are all that occur.
    """

    metric: Callable[[Floats, Floats], float]
    rows: Callable[[Floats], RowMetric]
    prediction: str = "prediction"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.prediction, "reference")

    @property
    def asked(self) -> tuple[str, ...]:
        return ("reference",)

    def value(self, columns: Columns) -> float:
        return float(self.metric(columns[self.prediction], columns["reference"]))

    def stderr(self, columns: Columns) -> float:
        predictions, references = columns[self.prediction], columns["reference"]
        return _bootstrap(self.rows(np.concatenate([predictions, references])), predictions, references)

    def scores(self, baseline: Columns, present: Columns, floor: float) -> Scores:
        before, after, references = baseline[self.prediction], present[self.prediction], present["reference"]
        return MetricOfPairs(before, after, references, self.rows(np.concatenate([before, after, references])), floor)


class Bleu(Statistic):
    """BLEU of a corpus, 0 to 100.

    For the bootstrap a prediction is the number of a text of either run, a reference that of an item. An item that is
    given another's text matches nothing.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        return BLEU_COLUMNS

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


class CalibrationError(Statistic):
    """The expected calibration error, 0 to 1."""

    @property
    def columns(self) -> tuple[str, ...]:
        return ("confidence", "correct")

    def value(self, columns: Columns) -> float:
        return float(calibration_error(columns["confidence"], columns["correct"]))

    def stderr(self, columns: Columns) -> float:
        return _bootstrap(calibration_error, columns["confidence"], columns["correct"])


@dataclass(frozen=True)
class MostConfident(Statistic):
    """The accuracy of the most confident share of the items."""

    share: float

    @property
    def columns(self) -> tuple[str, ...]:
        return ("confidence", "correct")

    def value(self, columns: Columns) -> float:
        return accuracy_of_most_confident(columns["confidence"], columns["correct"], self.share)

    def stderr(self, columns: Columns) -> float:
        count, accuracy = float(most_confident(columns["confidence"], self.share).sum()), self.value(columns)
        return math.sqrt(max(0.0, accuracy * (1 - accuracy)) / (count - 1)) if count > 1 else math.nan


def _error_of_mean(values: Floats) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _bootstrap(rows: RowMetric, predictions: Floats, references: Floats) -> float:
    def values(chosen: NDArray[np.int64]) -> Floats:
        return rows(predictions[chosen], references[chosen])

    return float(bootstrap_error(values, len(references), resamples=_RESAMPLES))


def _counts(columns: Columns) -> Floats:
    return np.stack([columns[name] for name in BLEU_COLUMNS], axis=-1)  # (item, column)


def _bleu_rows(counts: Floats, n: int) -> RowMetric:
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
