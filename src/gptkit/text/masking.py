"""Mask tokens for a masked language model (BERT: Devlin et al. 2018, section 3.1).

Every token is chosen by itself with probability 15%, a separator of documents like any other. Of the chosen tokens 80%
become the mask token, 10% a random token and 10% stay as they are; the model predicts all of them. Masks are a pure
function of (seed, row), so they are the same however a step is cut and whoever loads it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gptkit.text.blocks import MASKS, draws

CHOSEN, MASKED, REPLACED = 0.15, 0.8, 0.1  # the last two are shares of the first
NOT_CHOSEN = -100  # the label of a token that is not predicted
# No run's seed: runs of one text and length validate on the same masks. It masks a text's first token, so never none.
VALIDATION_SEED = 2**32


def is_chosen(seed: int, row: int, length: int) -> NDArray[np.bool_]:
    """Return which tokens (length,) of a row are predicted."""
    return _uniform(draws(seed, row, MASKS, length)) < CHOSEN


def mask_row(
    tokens: NDArray[np.int64], mask_token: int, *, seed: int, row: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what the model reads in place of a row's tokens (length,), and its labels (length,).

    Labels are the ids of the chosen tokens, NOT_CHOSEN elsewhere. Random tokens are drawn from the ids below the mask
    token, which are those of the text.
    """
    words = draws(seed, row, MASKS, 2 * len(tokens))  # the first half is that of `is_chosen`
    place, random_ids = _uniform(words[: len(tokens)]), words[len(tokens) :] % np.uint64(mask_token)
    read = np.where(place < CHOSEN * (MASKED + REPLACED), random_ids.astype(np.int64), tokens)
    return np.where(place < CHOSEN * MASKED, mask_token, read), np.where(place < CHOSEN, tokens, NOT_CHOSEN)


def _uniform(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return numbers from [0, 1)."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
