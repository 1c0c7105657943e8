"""A pure function that keeps its last result, for what several protocols ask of the same examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def remembered(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function; called again with the very same objects, it returns what it returned before."""
    last: list[tuple[tuple[object, ...], T]] = []

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        given = (*args, *kwargs.values())
        if not last or len(last[0][0]) != len(given) or any(a is not b for a, b in zip(last[0][0], given, strict=True)):
            last[:] = [(given, function(*args, **kwargs))]
        return last[0][1]

    return call
