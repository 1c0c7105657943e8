"""Bootstrap resampling, and metrics along the last axis, (..., item) -> (...), for thousands of resamples at once.

The draws are pure functions of their arguments: the same data gives the same intervals and p-values. F1, Matthews and
the correlations equal those of metrics.py, NaN where undefined, as is the area under the curve if a class is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PairStatistic = Callable[[Floats, Floats], Floats]  # predictions and references (..., item) -> (...)

BINS = 15  # of the calibration error
ORDERS = (1, 2, 3, 4)  # of BLEU's n-grams
BLEU_COLUMNS = (
    *(f"bleu_matches_{n}" for n in ORDERS),
    *(f"bleu_totals_{n}" for n in ORDERS),
    *("bleu_length", "bleu_reference_length"),
)

_SEED = 1  # the same draws for every interval and test
_CHUNK = 1 << 22  # items drawn at once: memory does not grow with the number of resamples


def resampled(n: int, resamples: int, *, stream: int = 0) -> Iterator[NDArray[np.int64]]:
    """Yield items drawn with replacement, in chunks (resample, item): a pure function of its arguments."""
    random = np.random.Philox(key=np.array([_SEED, stream], np.uint64))
    rows = max(1, _CHUNK // n)
    for start in range(0, resamples, rows):
        shape = (min(rows, resamples - start), n)
        yield (random.random_raw(shape[0] * n) % np.uint64(n)).astype(np.int64).reshape(shape)


def uniform(count: int, *, stream: int) -> NDArray[np.float64]:
    """Return numbers in [0, 1), a pure function of its arguments."""
    random = np.random.Philox(key=np.array([_SEED, stream], np.uint64))
    return np.asarray((random.random_raw(count) >> np.uint64(11)) * 2.0**-53)


def bootstrap_error(values: Callable[[NDArray[np.int64]], Floats], n: int, *, resamples: int) -> Any:
    """Return the standard error of a statistic of n items, ignoring resamples where it is NaN.

    `values`: chosen items (resample, item) -> the statistic of each resample (resample, ...). sqrt(n / (n - 1)) makes
    up for the spread that resampling n items underestimates (Hesterberg, "What Teachers Should Know About the
    Bootstrap", 2015).
    """
    found = np.concatenate([values(chosen) for chosen in resampled(n, resamples)])
    return np.nanstd(found, axis=0) * np.sqrt(n / max(1, n - 1))


def f1_rows(predictions: Floats, references: Floats) -> Floats:
    """Return the harmonic mean of precision and recall of class 1."""
    predicted, true = predictions == 1, references == 1
    found = np.count_nonzero(predicted & true, axis=-1)
    named = np.count_nonzero(predicted, axis=-1) + np.count_nonzero(true, axis=-1)
    return _ratio(2.0 * found, named)


def matthews_rows(predictions: Floats, references: Floats) -> Floats:
    """Return Matthews' correlation of two or more classes.

    Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient" (2004), equation 8, with
    counts in place of covariances.
    """
    n = predictions.shape[-1]
    classes = np.union1d(np.unique(predictions), np.unique(references))
    predicted = [np.count_nonzero(predictions == label, axis=-1) for label in classes]  # each (...)
    true = [np.count_nonzero(references == label, axis=-1) for label in classes]
    right = np.asarray(np.count_nonzero(predictions == references, axis=-1), np.float64)
    common = sum(1.0 * p * t for p, t in zip(predicted, true, strict=True))
    spread = [n * n - sum(1.0 * count * count for count in side) for side in (predicted, true)]
    return _ratio(n * right - common, np.sqrt(spread[0] * spread[1]))


def pearson_rows(predictions: Floats, references: Floats) -> Floats:
    """Return Pearson's linear correlation."""
    x, y = _centred(predictions), _centred(references)
    products = (x * y).sum(axis=-1)
    return np.clip(_ratio(products, np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))), -1.0, 1.0)


def spearman_rows(predictions: Floats, references: Floats) -> Floats:
    """Return Spearman's rank correlation; equal values get their mean rank."""
    return pearson_rows(_ranks(predictions), _ranks(references))


def auc_rows(scores: Floats, references: Floats) -> Floats:
    """Return the area under the ROC curve: how often an item of class 1 scores above one of class 0; ties count half.

    Computed from the rank sum of class 1 (Hanley and McNeil, "The Meaning and Use of the Area under a Receiver
    Operating Characteristic (ROC) Curve", 1982).
    """
    positive = references == 1
    ones = np.count_nonzero(positive, axis=-1).astype(np.float64)
    zeros = references.shape[-1] - ones
    above = np.where(positive, _ranks(scores), 0.0).sum(axis=-1) - ones * (ones + 1) / 2
    return _ratio(above, ones * zeros)


def calibration_error(confidence: Floats, correct: Floats) -> Floats:
    """Return the expected calibration error (...): the mean gap between confidence and accuracy over 15 equal bins.

    Guo et al., "On Calibration of Modern Neural Networks" (2017), equation 3; a bin includes its upper edge.
    """
    bins = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1)
    surplus = confidence - correct
    gaps = [np.abs(np.where(bins == number, surplus, 0.0).sum(axis=-1)) for number in range(BINS)]
    return np.asarray(np.sum(gaps, axis=0) / confidence.shape[-1])


def most_confident(confidence: Floats, fraction: float) -> Floats:
    """Return a weight for each item (item,): 1 for the most confident fraction, of at least one item, else 0.

    Items that tie at the border split the remaining weight, so that the order of the data does not matter.
    """
    count = max(1, math.floor(fraction * len(confidence) + 1e-9))
    border = np.sort(confidence)[-count]
    above, tied = confidence > border, confidence == border
    return np.asarray(above + tied * ((count - above.sum()) / tied.sum()), np.float64)


def corpus_bleu(counts: Floats) -> Floats:
    """Return BLEU (...), 0 to 100 (Papineni et al. 2002), from counts (..., BLEU_COLUMNS) summed over a corpus.

    Orders without a match count as 1/2, 1/4, ... of one (Chen and Cherry, "A Systematic Comparison of Smoothing
    Techniques for Sentence-Level BLEU", 2014, method 3), sacrebleu's default. BLEU is 0 without any match and without
    4-grams.
    """
    matches, totals = counts[..., :4], counts[..., 4:8]
    length, reference_length = counts[..., -2], counts[..., -1]
    smoothed = 0.5 ** np.cumsum(matches == 0, axis=-1)
    logs = np.log(np.where(matches > 0, matches, smoothed)) - np.log(np.maximum(totals, 1))
    brevity = np.minimum(0.0, 1 - reference_length / np.maximum(length, 1))
    defined = (matches > 0).any(axis=-1) & (totals > 0).all(axis=-1)
    return np.asarray(np.where(defined, 100 * np.exp(brevity + logs.mean(axis=-1)), 0.0))


def _ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=-1), np.float64)


def _centred(values: Floats) -> Floats:
    """Return deviations from the mean, scaled to at most 1, so that products neither overflow nor underflow."""
    constant = (values == values[..., :1]).all(axis=-1, keepdims=True)
    deviations = np.where(constant, 0.0, values - values.mean(axis=-1, keepdims=True))
    largest = np.abs(deviations).max(axis=-1, keepdims=True)
    return np.asarray(np.divide(deviations, largest, out=np.zeros_like(deviations), where=largest > 0))


def _ratio(above: Floats, below: Floats) -> Floats:
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0))
