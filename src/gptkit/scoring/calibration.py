"""Whether a model knows when it is right: pure functions of confidences and of what was right, each (..., item)."""

from __future__ import annotations

import math

import numpy as np

from gptkit.evaluate.gate.paired_tests import Floats

BINS = 15


def calibration_error(confidence: Floats, correct: Floats) -> Floats:
    """Return the expected calibration error (...): the gap of confidence and accuracy, over 15 equal-width bins.

    Guo et al., "On Calibration of Modern Neural Networks" (2017), equation 3; a bin holds its upper edge.
    """
    bins = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1)
    surplus = confidence - correct
    gaps = [np.abs(np.where(bins == one, surplus, 0.0).sum(axis=-1)) for one in range(BINS)]
    return np.asarray(np.sum(gaps, axis=0) / confidence.shape[-1])


def most_confident(confidence: Floats, share: float) -> Floats:
    """Return a weight for each item (item,): 1 for the most confident share of all, at least one item, else 0.

    Items that tie at the border share what is left, so that the order of the data does not matter.
    """
    count = max(1, math.floor(share * len(confidence) + 1e-9))
    border = np.sort(confidence)[-count]
    above, tied = confidence > border, confidence == border
    return np.asarray(above + tied * ((count - above.sum()) / tied.sum()), np.float64)


def accuracy_of_most_confident(confidence: Floats, correct: Floats, share: float) -> float:
    """Return the accuracy of the most confident share of the items (item,)."""
    weights = most_confident(confidence, share)
    return float((weights * correct).sum() / weights.sum())
