"""The measures of items by name: what they are made of, in which unit, and the smallest drop of them that counts.

Columns of items, each (item,):
    correct                                 1 for a right answer, else 0
    nll                                     nats, summed over the item's target
    tokens, words, bytes, characters        how many of them the item's original text has
    prediction, reference                   classes or scores
    score                                   of class 1, for references 0 or 1
    confidence                              probability of the prediction, beside `correct`
    impossible                              choices that could not be scored, where an item has any
    exact_match, answer_f1, rouge1, ...     0 to 1, averaged
    bleu_matches_1, ...                     counts that add up, see resampled_metrics.corpus_bleu
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gptkit.errors import InputError
from gptkit.scoring.item_statistics import Bleu, Columns, Mean, MostConfident, OfPairs, Rate, Statistic
from gptkit.scoring.protocols import Items
from gptkit.scoring.resampled_metrics import (
    auc_rows,
    calibration_error,
    f1_rows,
    matthews_of,
    pearson_rows,
    spearman_rows,
)

Unit = Literal["percent", "perplexity", "bits", "correlation", "points"]


@dataclass(frozen=True)
class Measure:
    """A statistic with its name, its unit on a screen, and its floor: the smallest drop that counts, positive.

    `floor` is in the measure's unit, or with `relative` a part of the baseline's value; None: it is never gated.
    `per_token`: values of two tokenizers cannot be compared.
    """

    name: str
    statistic: Statistic
    unit: Unit
    floor: float | None
    higher_is_better: bool = True
    relative: bool = False
    per_token: bool = False

    def floor_below(self, baseline: float) -> float:
        """Return the floor in the measure's unit, for a baseline of this value."""
        if self.floor is None:
            raise ValueError(f"{self.name} is not gated")
        return self.floor * baseline if self.relative else self.floor

    def shown(self, value: float | None) -> str:
        """Return a value as people read it: fractions in percent, perplexities and bits as they are."""
        if value is None:
            return "n/a"
        if self.unit == "percent":
            return f"{100 * value:.2f}%"
        if abs(value) >= 1000:
            return f"{value:,.1f}"
        return f"{value:.4g}" if self.unit == "perplexity" else f"{value:.4f}"


_SHARE = 0.02  # two points: less than that separates no two models of a paper's table
_CORRELATION = 0.02  # two points of a hundred, as GLUE's tables count correlations
_PERPLEXITY = 0.01  # of the baseline: 0.01 nats a unit, whatever the perplexity
_BITS = 0.01  # the last digit in which papers give bits per byte and per character
_ROUGE = 0.01  # a point of a hundred
_BLEU = 0.5  # half a point of a hundred: papers claim gains of one


def _perplexity(name: str, units: str | None, *, per_token: bool = False) -> Measure:
    statistic = Rate(units, perplexity=True)
    return Measure(name, statistic, "perplexity", _PERPLEXITY, False, relative=True, per_token=per_token)


def _bits(name: str, units: str) -> Measure:
    return Measure(name, Rate(units, perplexity=False), "bits", _BITS, higher_is_better=False)


_CALIBRATION_ERROR = OfPairs(lambda values: calibration_error, columns=("confidence", "correct"))
MEASURES = {
    measure.name: measure
    for measure in (
        Measure("accuracy", Mean("correct", binary=True), "percent", _SHARE),
        _perplexity("token_perplexity", "tokens", per_token=True),
        _perplexity("word_perplexity", "words"),
        _perplexity("perplexity", None),
        _bits("bits_per_byte", "bytes"),
        _bits("bits_per_character", "characters"),
        Measure("matthews", OfPairs(matthews_of, "matthews"), "correlation", _CORRELATION),
        Measure("f1", OfPairs(lambda values: f1_rows, "f1"), "percent", _SHARE),
        Measure("pearson", OfPairs(lambda values: pearson_rows, "pearson"), "correlation", _CORRELATION),
        Measure("spearman", OfPairs(lambda values: spearman_rows, "spearman"), "correlation", _CORRELATION),
        Measure("auc", OfPairs(lambda values: auc_rows, columns=("score", "reference")), "percent", _SHARE),
        Measure("calibration_error", _CALIBRATION_ERROR, "percent", None, higher_is_better=False),
        Measure("accuracy_top_1_percent", MostConfident(0.01), "percent", None),
        Measure("accuracy_top_10_percent", MostConfident(0.1), "percent", None),
        Measure("exact_match", Mean("exact_match"), "percent", _SHARE),
        Measure("answer_f1", Mean("answer_f1"), "percent", _SHARE),
        *(Measure(name, Mean(name), "percent", _ROUGE) for name in ("rouge1", "rouge2", "rougeL", "rouge")),
        Measure("bleu", Bleu(), "points", _BLEU),
    )
}


def measure(names: Sequence[str], items: Items, values: Mapping[str, float] = {}) -> dict[str, dict[str, Any]]:
    """Return value, stderr (None: of a single item there is none) and higher_is_better of each measure by name.

    `values` are those that are known. InputError, with the measure's name, without items and where one is not finite.
    """
    found = {}
    for name in names:
        value = values[name] if name in values else value_of(MEASURES[name], items.columns)
        if not math.isfinite(value):
            fix = "check the model's weights, and that the data hold what the measure needs"
            raise InputError(f"{name} is {value} over {len(items.ids)} items", fix=fix)
        found[name] = _entry(MEASURES[name], value, items.columns)
    return found


def breakdown(names: Sequence[str], items: Items) -> dict[str, dict[str, dict[str, Any]]]:
    """Return n and metrics of every part that `items.groups` tell: group -> part -> {"n", "metrics"}.

    A measure that is not defined of a part, such as an area under the curve of one class alone, has the value None.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for group, parts in items.groups.items():
        members = np.asarray(parts)
        found[group] = {
            str(part): _part(names, {name: column[members == part] for name, column in items.columns.items()})
            for part in sorted(set(parts))
        }
    return found


def value_of(measure: Measure, columns: Columns) -> float:
    """Return the value of a measure, not finite where it is not defined; InputError without items."""
    if not len(columns[measure.statistic.columns[0]]):
        raise InputError(f"{measure.name} of no items", fix="give data with one example or more")
    with np.errstate(all="ignore"):  # what overflows is told as not finite
        return measure.statistic.value(columns)


def _part(names: Sequence[str], columns: Columns) -> dict[str, Any]:
    values = {name: value_of(MEASURES[name], columns) for name in names}
    n = len(next(iter(columns.values())))
    return {"n": n, "metrics": {name: _entry(MEASURES[name], value, columns) for name, value in values.items()}}


def _entry(measure: Measure, value: float, columns: Columns) -> dict[str, Any]:
    defined = math.isfinite(value) and len(columns[measure.statistic.columns[0]]) > 1
    with np.errstate(all="ignore"):
        stderr = measure.statistic.stderr(columns) if defined else math.nan
    return {
        "value": value if math.isfinite(value) else None,
        "stderr": stderr if math.isfinite(stderr) else None,
        "higher_is_better": measure.higher_is_better,
    }
