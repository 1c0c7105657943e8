from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gptkit.scoring.protocols import windows

SIZES = st.integers(1, 40).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window)))


def cut(length: int, window: int, stride: int) -> list[tuple[list[int], list[int]]]:
    """Return the context and the scored tokens of each window over the tokens 1, 2, ... after a separator 0."""
    found = [request for _, request in windows(np.arange(length + 1), window=window, stride=stride)]
    return [(one.ids[: one.start].tolist(), one.ids[one.start :].tolist()) for one in found]


def test_disjoint_windows_by_hand() -> None:
    """lm-eval 0.4.13's rolling windows with one token of context, made disjoint, give these."""
    assert cut(0, 4, 4) == []
    assert cut(3, 4, 4) == [([0], [1, 2, 3])]
    assert cut(4, 4, 4) == [([0], [1, 2, 3, 4])]
    assert cut(8, 4, 4) == [([0], [1, 2, 3, 4]), ([4], [5, 6, 7, 8])]
    assert cut(6, 4, 4) == [([0], [1, 2, 3, 4]), ([2, 3, 4], [5, 6])]  # the last one is filled up
    assert cut(3, 1, 1) == [([0], [1]), ([1], [2]), ([2], [3])]


def test_sliding_windows_by_hand() -> None:
    assert cut(7, 4, 2) == [([0], [1, 2, 3, 4]), ([2, 3, 4], [5, 6]), ([3, 4, 5, 6], [7])]


@given(st.integers(0, 300), SIZES)
def test_every_token_is_scored_once_with_the_context_that_is_promised(length: int, sizes: tuple[int, int]) -> None:
    window, stride = sizes
    stream = np.arange(length + 1)
    scored: list[int] = []
    for position, request in windows(stream, window=window, stride=stride):
        assert request.ids.base is stream  # a view
        assert (np.diff(request.ids) == 1).all()
        assert len(request.ids) <= window + 1
        assert request.ids[request.start] == position == len(scored) + 1
        assert request.start >= min(position, window - stride + 1)
        scored += request.ids[request.start :].tolist()
    assert scored == list(range(1, length + 1))
