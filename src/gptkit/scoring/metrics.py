"""The metrics of labelled tasks (GLUE: Wang et al. 2018, table 1), as classes of the `evaluate` library.

Fine-tuning and `gptkit eval` compute them here. Importing this module takes seconds, because of `evaluate` and
`datasets`: import it where the first metric is computed. No metric is loaded by name or over the network.

An undefined metric is NaN: a correlation where one side is constant, F1 where class 1 occurs on neither.
"""

from __future__ import annotations

import functools
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import datasets
import numpy as np
from numpy.typing import NDArray

import evaluate
from gptkit.scoring.resampling import Floats

Values = Sequence[float] | NDArray[Any]


class PairMetric(evaluate.Metric):  # type: ignore[misc]
    """A metric of predictions and references, each (example,), that stores nothing on disk."""

    metric: ClassVar[str]

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        return ""  # `evaluate` would create a directory under $HOME that it never uses

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({name: datasets.Value("float64") for name in ("predictions", "references")})
        return evaluate.MetricInfo(description=str(self.__doc__), citation="", features=features)

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        return {self.metric: self.value(np.array(predictions), np.array(references))}

    @abstractmethod
    def value(self, predicted: Floats, true: Floats) -> float:
        """Return the metric, a pure function."""


class Accuracy(PairMetric):
    """The fraction of examples whose prediction equals the reference."""

    metric = "accuracy"

    def value(self, predicted: Floats, true: Floats) -> float:
        return float((predicted == true).mean())


class F1(PairMetric):
    """The harmonic mean of precision and recall of class 1."""

    metric = "f1"

    def value(self, predicted: Floats, true: Floats) -> float:
        from sklearn.metrics import f1_score

        return float(f1_score(true == 1, predicted == 1, zero_division=np.nan))


class Matthews(PairMetric):
    """Matthews correlation coefficient, -1 to 1, for two or more classes."""

    metric = "matthews"

    def value(self, predicted: Floats, true: Floats) -> float:
        from sklearn.metrics import matthews_corrcoef

        if _is_constant(predicted) or _is_constant(true):
            return np.nan
        return float(matthews_corrcoef(true, predicted))


class Pearson(PairMetric):
    """Pearson's linear correlation, -1 to 1."""

    metric = "pearson"

    def value(self, predicted: Floats, true: Floats) -> float:
        from scipy.stats import pearsonr

        return _correlation(pearsonr, predicted, true)


class Spearman(PairMetric):
    """Spearman's rank correlation, -1 to 1; equal values get their mean rank."""

    metric = "spearman"

    def value(self, predicted: Floats, true: Floats) -> float:
        from scipy.stats import spearmanr

        return _correlation(spearmanr, predicted, true)


METRICS: dict[str, type[PairMetric]] = {kind.metric: kind for kind in (Accuracy, F1, Matthews, Pearson, Spearman)}


@functools.cache
def metric(name: str) -> PairMetric:
    """Return a metric of METRICS, the same instance throughout the process."""
    return METRICS[name]()


def compute(name: str, predictions: Values, references: Values) -> float:
    """Return the value of a metric of METRICS; ValueError unless there is one prediction and reference per example."""
    predicted, true = np.asarray(predictions, np.float64), np.asarray(references, np.float64)
    if predicted.ndim != 1 or predicted.shape != true.shape or not len(true):
        raise ValueError(f"predictions of shape {predicted.shape} do not match references of shape {true.shape}")
    found: dict[str, float] = metric(name).compute(predictions=predicted, references=true)
    return found[name]


def _is_constant(values: Floats) -> bool:
    return bool((values == values[0]).all())


def _correlation(function: Callable[..., Any], predicted: Floats, true: Floats) -> float:
    if _is_constant(predicted) or _is_constant(true):
        return np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy's, for inputs that are constant up to rounding
        return float(function(predicted, true).statistic)
