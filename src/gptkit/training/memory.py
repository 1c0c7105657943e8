"""Memory of a training process: reuse it on CPUs, measure its peak, and find the micro-batch that fits a GPU."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform
import threading
from types import TracebackType

import torch
import torch.distributed as dist

from gptkit.errors import OutOfResources
from gptkit.system.limits import is_out_of_memory
from gptkit.training.batches import MicroBatch
from gptkit.training.processes import all_reduce
from gptkit.training.step import Trainer

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1

FIX = "use a GPU with more memory, a smaller model or sequence length, or --accelerate-config fsdp2"


def keep_freed_memory() -> None:
    """Let glibc's allocator keep freed memory for the next tensor; does nothing with other C libraries.

    By default every large tensor is mapped when allocated and unmapped when freed: each training step on a CPU then
    pays a page fault per 4 KiB of activations.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)


class PeakMemory:
    """Measure the peak memory in bytes inside a `with`: on a GPU what torch allocated, else the process's own memory.

    `peak` is None on systems that do not report it. Linux keeps no high-water mark of RssAnon, so a thread samples it
    every 5 ms.
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
    """Return a process's own memory in bytes, without mapped files; None on systems other than Linux."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/status") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return None


def may_run_out(device: torch.device) -> bool:
    """Return whether running out of memory raises an error here; on a CPU the system kills the process instead."""
    return device.type == "cuda"


def fitting_micro_batch(trainer: Trainer, step: int) -> int:
    """Halve the job's micro-batch until every process has enough memory for it; return its number of rows.

    Tries the largest passes of the job. The rows and tokens of a step stay the same, split into more passes. The trials
    leave nothing behind but the optimizer's state, which they create, still empty. Raises OutOfResources if not even
    one row fits.
    """
    micro_batching = trainer.job.micro_batching
    assert micro_batching.largest is not None
    size = micro_batching.micro_batch
    while True:
        fits = torch.tensor(int(_fits(trainer, micro_batching.largest(size), step)), device=trainer.accelerator.device)
        if all_reduce(trainer.accelerator, fits, dist.ReduceOp.MIN):
            return size
        if size == 1:
            raise OutOfResources("out of memory even with a micro-batch of 1", fix=FIX)
        size //= 2


def _fits(trainer: Trainer, passes: list[MicroBatch], step: int) -> bool:
    try:
        trainer.warm_up(step, passes, with_optimizer=True)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    # Outside of the handler: its traceback keeps the tensors alive.
    trainer.drop_gradients()
    gc.collect()
    torch.cuda.empty_cache()
    return False
