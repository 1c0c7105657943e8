"""Random draws that are pure functions of their arguments: the same data gives the same intervals and p-values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PairStatistic = Callable[[Floats, Floats], Floats]  # predictions and references (..., item) -> (...)

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


def bootstrap_error(values: Callable[[NDArray[np.int64]], Floats], n: int, *, resamples: int) -> Any:
    """Return the standard error of a statistic of n items; what is NaN is left out.

    `values`: chosen items (resample, item) -> the statistic of each resample (resample, ...). sqrt(n / (n - 1)) makes
    up for the spread that resampling n items underestimates (Hesterberg, "What Teachers Should Know About the
    Bootstrap", 2015).
    """
    found = np.concatenate([values(chosen) for chosen in resampled(n, resamples)])
    return np.nanstd(found, axis=0) * np.sqrt(n / max(1, n - 1))
