"""The processes of a distributed run, through Accelerate: set-up, shared results and errors, agreement on a stop."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import psutil
import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from gptkit.errors import AGAIN, GptkitError, OtherRankFailed, OutOfResources, UsageError
from gptkit.system import ranks
from gptkit.system.processor import choose_device
from gptkit.system.signals import StopRequest
from gptkit.training import sharding
from gptkit.training.batches import ShouldStop

T = TypeVar("T")

GROUP_TIMEOUT = timedelta(hours=6)  # for the main process to tokenize; a process that dies is noticed at once
STALL_SECONDS = 20.0  # that a process may be stopped by a signal before another process kills it
POLL_SECONDS = 1.0
BATCHES_PER_CHECK = 8  # of an evaluation on GPUs, which must synchronize to agree on a stop


def make_accelerator(device: str) -> Accelerator:
    """Return the accelerator for auto, cpu, cuda or mps, in the process group that the environment describes.

    Its mixed precision and gradient accumulation stay off: the loop does both. Raises UsageError for a missing device.
    """
    is_cpu = choose_device(device).type == "cpu"
    ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    group = InitProcessGroupKwargs(timeout=GROUP_TIMEOUT)
    asked = os.environ.pop(sharding.ASKED, None)  # or Accelerate would shard by itself
    try:
        accelerator = Accelerator(cpu=is_cpu, mixed_precision="no", kwargs_handlers=[ddp, group])
    finally:
        if asked is not None:
            os.environ[sharding.ASKED] = asked
    if device in ("cuda", "mps") and accelerator.device.type != device:
        raise UsageError(f"Accelerate chose {accelerator.device}", where="--device", fix="leave --device out")
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:  # each would train as if it were the only one
        message = f"{launched} processes were launched, but Accelerate sees {accelerator.num_processes}"
        raise UsageError(message, where="WORLD_SIZE", fix="launch with torchrun or accelerate launch")
    if launched > 1:  # a thread of the group that outlives the interpreter would abort the process
        atexit.register(lambda: dist.destroy_process_group() if dist.is_initialized() else None)
        watch_next_rank(accelerator)
    return accelerator


def on_main_process(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Run `work` on the main process; return its result, or raise its error, on every process."""
    is_main = accelerator.is_main_process
    return cast("T", _agreed(accelerator, lambda: work() if is_main else None, broadcast_object_list)[0])


def on_every_process(accelerator: Accelerator, work: Callable[[], T]) -> list[T]:
    """Run `work` on every process; return all results, or raise the first error, on every process."""
    return _agreed(accelerator, work, gather_object)


def _agreed(accelerator: Accelerator, work: Callable[[], T], exchange: Callable[[list[Any]], list[Any]]) -> list[T]:
    if accelerator.num_processes == 1:
        return [work()]
    outcome: tuple[T | None, GptkitError | None]
    try:
        outcome = work(), None
    except GptkitError as error:
        outcome = None, error
    except Exception as error:
        process = "the main process" if accelerator.is_main_process else f"process {accelerator.process_index}"
        exchange([(None, OtherRankFailed(f"{process} failed: {error!r}"))])
        raise
    outcomes = exchange([outcome])
    for _, failure in outcomes:
        if failure is not None:
            raise failure
    return [result for result, _ in outcomes]


def main_process_first(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Run `work` on the main process first, then on the others; an error of the main process is raised on all."""
    found: list[T] = []
    on_main_process(accelerator, lambda: found.append(work()))
    return found[0] if found else work()


def all_reduce(accelerator: Accelerator, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    """Reduce `values` over all processes, in place, and return them."""
    if accelerator.num_processes > 1:
        dist.all_reduce(values, op=operation)
    return values


class AgreedStop:
    """Agreement of all processes on a stop, so that all stop at the same place, whichever received the signal.

    Every process must make the same number of calls.
    """

    def __init__(self, stop: StopRequest, accelerator: Accelerator) -> None:
        self.stop, self.accelerator = stop, accelerator

    @property
    def received(self) -> int:
        """The signal that this process has received, 0 for none."""
        return self.stop.signal_number

    def signal_number(self) -> int:
        """Return the signal that any process has received, 0 for none."""
        if self.accelerator.num_processes == 1:
            return self.stop.signal_number
        number = torch.tensor(self.stop.signal_number, device=self.accelerator.device)
        return int(all_reduce(self.accelerator, number, dist.ReduceOp.MAX))

    def for_evaluation(self) -> ShouldStop:
        """Return the function that an evaluation calls before each batch; GPUs synchronize only now and then."""
        if self.accelerator.num_processes == 1:
            return lambda: self.stop.is_asked
        every = 1 if self.accelerator.device.type == "cpu" else BATCHES_PER_CHECK
        turns = itertools.count()
        return lambda: next(turns) % every == 0 and self.signal_number() != 0


def watch_next_rank(accelerator: Accelerator) -> None:
    """Start a thread that kills the process of the next rank if it stalls; every process must call this.

    A process that dies is noticed at once, by its launcher and by those that wait for it. One that is stopped (SIGSTOP)
    does not react to anything, not even to its launcher's request to end, and all others would wait for hours.
    """
    own = psutil.Process()
    processes = gather_object([(socket.gethostname(), own.pid, own.create_time())])
    rank = (accelerator.process_index + 1) % accelerator.num_processes
    host, pid, created = processes[rank]
    with contextlib.suppress(psutil.Error):
        neighbour = psutil.Process(pid)
        if host == socket.gethostname() and neighbour.create_time() == created:
            threading.Thread(target=_watch, args=(rank, neighbour), daemon=True).start()


def _watch(rank: int, process: psutil.Process) -> None:
    """If the process stalls, report the error on its behalf and kill it, which the other processes notice."""
    last_alive = time.monotonic()
    with contextlib.suppress(psutil.Error):
        while process.is_running():
            if process.status() != psutil.STATUS_STOPPED:
                last_alive = time.monotonic()
            elif time.monotonic() - last_alive > STALL_SECONDS:
                message = f"process {rank} was stopped by a signal and not continued within {STALL_SECONDS:.0f} s"
                error = OutOfResources(message, where=f"pid {process.pid}", fix=AGAIN)
                if not ranks.report_error(error, rank=rank):
                    print(f"error: {error}", file=sys.stderr, flush=True)
                process.kill()
                return
            time.sleep(POLL_SECONDS)
