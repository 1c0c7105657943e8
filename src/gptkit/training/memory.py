"""How the process holds on to its memory."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import threading
from types import TracebackType

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc's allocator keep what it frees, for the next tensor of that size; elsewhere do nothing.

    By default a large tensor is mapped afresh each time and given back when freed: every step of a training run on a
    CPU then pays a page fault for each 4 KiB of activations.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)


class PeakMemory:
    """The most memory of its own (Linux: RssAnon) that the process held inside the `with`, in bytes; else None.

    The kernel keeps a high-water mark of everything only, mapped files included, so a thread looks every 5 ms.
    """

    def __init__(self) -> None:
        self.peak = own_memory()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while self.peak is not None and not self._over.wait(0.005):
            self.peak = max(self.peak, own_memory() or 0)


def own_memory() -> int | None:
    """Return the bytes that belong to this process alone, without mapped files; None where the system tells no such."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return None
