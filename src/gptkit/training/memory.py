"""How the process holds on to its memory, and how much it holds."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import threading
from types import TracebackType

import torch

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
    """The most memory that the process held inside the `with`, in bytes: a GPU's as torch gave it out, else its own.

    None where the system does not tell. Of a process's own memory (Linux: RssAnon) the kernel keeps no high-water mark,
    so a thread looks every 5 ms.
    """

    def __init__(self, device: torch.device) -> None:
        self.peak: int | None = None
        self._device = device
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self.peak = own_memory()
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self._device)
            return
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while self.peak is not None and not self._over.wait(0.005):
            self.peak = max(self.peak, own_memory() or 0)


def own_memory(process: int | str = "self") -> int | None:
    """Return the bytes that belong to a process alone, without mapped files; None where the system tells no such."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/status") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return None
