"""What numpy and torch call alike, so that one function serves the arrays of both."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor


def array_namespace(array: Array) -> Any:
    """Return the array standard's functions for an array: numpy's own, or torch's by array_api_compat.

    Not array_api_compat's for numpy, which import f2py and numpy's tests: a quarter of a second before the first token.
    """
    if isinstance(array, np.ndarray):
        return np
    from array_api_compat import torch

    return torch


def descending_order(array: Array) -> Array:
    """Return the places of each row's entries from the largest down, of equal ones the first first."""
    if isinstance(array, np.ndarray):
        return np.argsort(-array, axis=-1, stable=True)
    return array_namespace(array).argsort(array, axis=-1, descending=True, stable=True)
