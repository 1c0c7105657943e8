"""How the process holds on to its memory, how much it holds, and the micro-batch that fits into a GPU's."""

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


def may_run_out(device: torch.device) -> bool:
    """Say whether a device refuses what it has no memory for; a CPU's system ends the process instead."""
    return device.type == "cuda"


def fitting_micro_batch(trainer: Trainer, step: int) -> int:
    """Return the most rows, a halving of the job's micro-batch, that every process has the memory for.

    The largest passes of `step` are tried. A step keeps its rows, and with them its tokens: it takes more passes.
    Nothing is left of the trials but the optimizer's state, which is made now, and empty. Raises OutOfResources where
    not even one row fits.
    """
    micro_batching = trainer.job.micro_batching
    assert micro_batching.largest is not None
    size = micro_batching.micro_batch
    while True:
        fits = torch.tensor(int(_fits(trainer, micro_batching.largest(size), step)), device=trainer.accelerator.device)
        if all_reduce(trainer.accelerator, fits, dist.ReduceOp.MIN):
            return size
        if size == 1:
            message = f"out of memory with a single one of the {micro_batching.unit} per forward pass"
            raise OutOfResources(message, fix=FIX)
        size //= 2


def _fits(trainer: Trainer, passes: list[MicroBatch], step: int) -> bool:
    try:
        trainer.warm_up(step, passes, with_optimizer=True)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    # Outside of the handler, whose traceback holds on to the tensors.
    trainer.drop_gradients()
    gc.collect()
    torch.cuda.empty_cache()
    return False
