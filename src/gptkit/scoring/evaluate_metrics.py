"""The metrics as classes of the `evaluate` library, to be instantiated directly: nothing is loaded by name.

Importing this module takes seconds, for `evaluate` and `datasets` come along. What an instance is given lies in a
temporary folder that goes when the instance does; no network is used.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from typing import Any, ClassVar

import datasets

import evaluate
from gptkit.scoring import metrics


class _Metric(evaluate.Metric):  # type: ignore[misc]
    metric: ClassVar[str]
    value_type: ClassVar[str]

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="gptkit-metric-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        super().__init__(cache_dir=folder, keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        features = {name: datasets.Value(self.value_type) for name in ("predictions", "references")}
        description = str(metrics.METRICS[self.metric].__doc__)
        return evaluate.MetricInfo(description=description, citation="", features=datasets.Features(features))

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {self.metric: metrics.METRICS[self.metric](predictions, references)}


class Accuracy(_Metric):
    metric = "accuracy"
    value_type = "int64"


class F1(_Metric):
    metric = "f1"
    value_type = "int64"


class Matthews(_Metric):
    metric = "matthews"
    value_type = "int64"


class Pearson(_Metric):
    metric = "pearson"
    value_type = "float64"


class Spearman(_Metric):
    metric = "spearman"
    value_type = "float64"
