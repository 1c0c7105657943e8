"""How the process holds on to its memory."""

from __future__ import annotations

import ctypes
import platform

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
