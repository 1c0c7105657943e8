"""A stream of tokens in windows that a model can see, every token scored exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gptkit.scoring.protocols import Request, TokenIds


class Window(NamedTuple):
    """A request, and where in the stream its scored tokens begin."""

    scored_from: int
    request: Request


def windows(stream: TokenIds, *, window: int, stride: int) -> Iterator[Window]:
    """Yield windows over a stream (1 + tokens,) whose first id is only seen; the others are scored, once and in order.

    A window is `window` inputs. The first scores `window` tokens, a later one the next `stride`, or what is left, and
    reaches back as far as it can: they have window - stride + 1 tokens or more before them. With stride = window
    neighbours share nothing, but the last window is filled up with tokens that are scored already.
    """
    position = 1
    while position < len(stream):
        end = min(position + (window if position == 1 else stride), len(stream))
        begin = max(0, end - (window + 1))
        yield Window(position, Request(stream[begin:end], position - begin))
        position = end
