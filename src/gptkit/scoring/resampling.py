"""Random draws that are pure functions of their arguments: the same data gives the same intervals and p-values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_SEED = 1  # the same draws for every interval and test
_CHUNK = 1 << 22  # items drawn at once: memory does not grow with resamples


def resampled(n: int, resamples: int, *, stream: int = 0) -> Iterator[NDArray[np.int64]]:
    """Yield items drawn with replacement (resample, item), chunk by chunk: a pure function of its arguments."""
    random = np.random.Philox(key=np.array([_SEED, stream], np.uint64))
    rows = max(1, _CHUNK // n)
    for start in range(0, resamples, rows):
        shape = (min(rows, resamples - start), n)
        yield (random.random_raw(shape[0] * n) % np.uint64(n)).astype(np.int64).reshape(shape)


def uniform(count: int, *, stream: int) -> NDArray[np.float64]:
    """Return numbers in [0, 1), a pure function of its arguments."""
    random = np.random.Philox(key=np.array([_SEED, stream], np.uint64))
    return np.asarray((random.random_raw(count) >> np.uint64(11)) * 2.0**-53)
