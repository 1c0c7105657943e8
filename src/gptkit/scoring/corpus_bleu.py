"""BLEU of a corpus from counts that add up over its sentences (Papineni et al., "BLEU", 2002).

The counts are in the order of BLEU_COLUMNS: matching n-grams of orders 1 to 4, n-grams of these orders, lengths.
"""

from __future__ import annotations

import numpy as np

from gptkit.evaluate.gate.paired_tests import Floats

_ORDERS = 4
BLEU_COLUMNS = (
    *(f"bleu_matches_{n}" for n in range(1, _ORDERS + 1)),
    *(f"bleu_totals_{n}" for n in range(1, _ORDERS + 1)),
    *("bleu_length", "bleu_reference_length"),
)


def corpus_bleu(counts: Floats) -> Floats:
    """Return BLEU, 0 to 100, of counts (..., column) summed over a corpus: (...).

    Orders without a match count 1/2, 1/4, ... of one (Chen and Cherry, "A Systematic Comparison of Smoothing Techniques
    for Sentence-Level BLEU", 2014, method 3), as sacrebleu has it by default. It is 0 without any match, or when there
    are no 4-grams.
    """
    matches, totals = counts[..., :_ORDERS], counts[..., _ORDERS : 2 * _ORDERS]
    length, reference_length = counts[..., -2], counts[..., -1]
    smoothed = 0.5 ** np.cumsum(matches == 0, axis=-1)
    logs = np.log(np.where(matches > 0, matches, smoothed)) - np.log(np.maximum(totals, 1))
    brevity = np.minimum(0.0, 1 - reference_length / np.maximum(length, 1))
    defined = (matches > 0).any(axis=-1) & (totals > 0).all(axis=-1)
    return np.asarray(np.where(defined, 100 * np.exp(brevity + logs.mean(axis=-1)), 0.0))
