"""Signal handling: the first signal asks for a clean stop and is acknowledged, the second ends the process at once.

Python runs signal handlers between two bytecodes, so a long call into C delays them. The C half of a handler writes to
a pipe immediately, though, and a thread that reads from it can respond as long as that call releases the GIL.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Self

# What terminals, users, service managers and batch schedulers send before SIGKILL; Windows has only two of them.
NAMES = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGXCPU")
HANDLED = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
IGNORED_IN_BACKGROUND = ("SIGINT", "SIGQUIT")  # a shell without job control ignores them in every job started with &
# Seconds within which several signals count as one: a closing terminal and `timeout` signal twice, and Slurm signals a
# launcher as well as its ranks, to which the launcher forwards the signal.
TOGETHER = 0.3
SIG_DFL, SIG_IGN = 0, 1  # for the kernel


def handled_signals() -> list[int]:
    """Return the signals to handle: all but those that the parent process, such as nohup, deliberately ignores."""
    in_background = [getattr(signal, name, None) for name in IGNORED_IN_BACKGROUND]
    return [number for number in HANDLED if number in in_background or signal.getsignal(number) is not signal.SIG_IGN]


class SignalWatch:
    """A context in which the first signal calls `on_signal(number)` in the main thread, between two bytecodes.

    If the context has not ended TOGETHER seconds later, a thread acknowledges the signal through `say` and restores
    the kernel's default actions, so that the next signal ends the process even inside a call into C. SIGXCPU is then
    ignored, since the kernel repeats it every second past a CPU time limit. In other threads the context does nothing.
    """

    def __init__(self, on_signal: Callable[[int], None], say: Callable[[str], object], when: str) -> None:
        self._on_signal, self._say, self._when = on_signal, say, when
        self._received = 0
        self._previous: dict[int, object] = {}
        self._previous_wakeup = -1
        self._pipe: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in handled_signals()}
            if os.name != "nt":  # Windows would need a socket
                self._pipe = os.pipe()
                os.set_blocking(self._pipe[1], False)
                self._previous_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
                arguments = (self._pipe[0], frozenset(self._previous))
                threading.Thread(target=self._acknowledge, args=arguments, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._on_signal = lambda number: None  # it may raise, which would now be too late
        with self._lock:
            if self._pipe is not None:
                signal.set_wakeup_fd(self._previous_wakeup)
                os.close(self._pipe[1])  # the thread then closes the other end
                self._pipe = None
            for number, handler in self._previous.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)  # type: ignore[arg-type]
            self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._received:
            self._received = number
            self._on_signal(number)
        elif self._pipe is None:  # no thread hands the signals back to the kernel
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _acknowledge(self, pipe: int, numbers: frozenset[int]) -> None:
        while (byte := os.read(pipe, 1)) and byte[0] not in numbers:
            continue
        if byte and self._hand_to_kernel():
            name = signal.Signals(byte[0]).name
            self._say(f"{name} received; stopping {self._when}. A second signal ends the process at once.")
        while os.read(pipe, 64):
            continue
        os.close(pipe)

    def _hand_to_kernel(self) -> bool:
        """Restore the kernel's default actions after TOGETHER; return False if the context has ended by then."""
        time.sleep(TOGETHER)
        # signal.signal() works only in the main thread, which may be in a long call.
        set_signal = ctypes.pythonapi.PyOS_setsig
        set_signal.argtypes, set_signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        with self._lock:
            for number in self._previous:
                set_signal(number, SIG_IGN if number == getattr(signal, "SIGXCPU", None) else SIG_DFL)
            return bool(self._previous)


@contextlib.contextmanager
def default_interrupts() -> Iterator[None]:
    """In this context each Ctrl-C raises KeyboardInterrupt, unacknowledged; for the main thread only."""
    descriptor, handler = signal.set_wakeup_fd(-1), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.set_wakeup_fd(descriptor)


class StopRequest(SignalWatch):
    """A stop flag that the first signal sets; a context that ends without an exception raises the signal again."""

    def __init__(self, say: Callable[[str], object] = lambda text: None) -> None:
        super().__init__(self._grant, say, "after the current step")
        self.signal_number = 0

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        if self._received and exception[0] is None:
            signal.raise_signal(self._received)

    def _grant(self, number: int) -> None:
        self.ask(number)
        self._hand_to_kernel()  # now: the next call into C may hold the GIL

    def ask(self, number: int) -> None:
        """Set the flag as the signal `number` would."""
        self.signal_number = int(number)

    @property
    def is_asked(self) -> bool:
        return self.signal_number != 0
