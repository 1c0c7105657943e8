"""Stopping on request: the first SIGTERM, SIGINT or SIGUSR1 asks, the second one ends the process at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self

HANDLED = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]


class StopRequest:
    """A flag that signals set while this is entered as a context manager; the old handlers come back afterwards.

    SIGUSR1 is a batch system's warning and counts as SIGTERM. After the first signal the kernel's default action is
    back, so that a second one ends the process even inside a long computation.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in HANDLED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)  # type: ignore[arg-type]
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.ask(number)
        for one in HANDLED:
            signal.signal(one, signal.SIG_DFL)

    def ask(self, number: int) -> None:
        """Ask for a stop as the signal `number` would."""
        self.signal_number = int(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    @property
    def is_asked(self) -> bool:
        return self.signal_number != 0
