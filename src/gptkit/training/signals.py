"""Stopping on request: the first SIGTERM, SIGINT or SIGUSR1 asks, the second one ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Self

HANDLED = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]


class StopRequest:
    """A flag that signals set while this is entered as a context manager; the old handlers come back afterwards.

    SIGUSR1 is a batch system's warning and counts as SIGTERM. After the first signal the kernel's default action is
    back, so that a second one ends the process; inside a long computation, which Python's handlers wait for, a thread
    does that. A request that came too late to be granted is handed on to the old handlers in the end.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._received = 0
        self._previous: dict[int, object] = {}
        self._previous_wakeup = -1
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in HANDLED}
            self._watch()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pipe is not None:
            signal.set_wakeup_fd(self._previous_wakeup)
            os.close(self._pipe[1])  # the thread closes the other end
            self._pipe = None
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)  # type: ignore[arg-type]
        self._previous = {}
        if self._received and kind is None:
            signal.raise_signal(self._received)

    def _watch(self) -> None:
        """Have the kernel's handler write every signal into a pipe, and a thread read from it."""
        with contextlib.suppress(ValueError, OSError):  # Windows takes sockets alone
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            self._previous_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            threading.Thread(target=_end_at_the_second, args=(self._pipe[0],), daemon=True).start()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self.ask(number)
        for one in HANDLED:
            signal.signal(one, signal.SIG_DFL)

    def ask(self, number: int) -> None:
        """Ask for a stop as the signal `number` would."""
        self.signal_number = int(number)

    @property
    def is_asked(self) -> bool:
        return self.signal_number != 0


def _end_at_the_second(pipe: int) -> None:
    count = 0
    while received := os.read(pipe, 1):
        count += received[0] in HANDLED
        if count == 2:
            os._exit(128 + received[0])
    os.close(pipe)
