"""The order of training data: pure functions of (seed, epoch), whatever the machine and the number of processes.

Philox is a counter-based generator: its key is (seed, epoch), and its raw 64-bit output is the same in every NumPy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# The counter's highest word keeps the draws of different purposes apart.
_ORDER, _OFFSET = 0, 1


def block_order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """Return the permutation of range(n) in which an epoch visits its n blocks."""
    return np.argsort(_raw(seed, epoch, _ORDER, n), kind="stable")  # stable: equal draws keep one order


def epoch_offset(seed: int, epoch: int, sequence_length: int) -> int:
    """Return where an epoch's first block begins, 0 to sequence_length - 1: blocks begin elsewhere in each epoch."""
    return int(_raw(seed, epoch, _OFFSET, 1)[0] % np.uint64(sequence_length))


def _raw(seed: int, epoch: int, purpose: int, n: int) -> NDArray[np.uint64]:
    key = np.array([seed, epoch], np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, 0, purpose], np.uint64)).random_raw(n)
