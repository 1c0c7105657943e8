"""Processes of one run, through Accelerate: who they are, and how they agree."""

from __future__ import annotations

import atexit
import itertools
import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import gather_object
from torch import Tensor

from gptkit.errors import GptkitError, OtherRankFailed, UsageError
from gptkit.system.processor import choose_device
from gptkit.system.signals import StopRequest
from gptkit.training import sharding
from gptkit.training.batches import ShouldStop
from gptkit.training.stall_watch import watch_next_rank

T = TypeVar("T")

PATIENCE = timedelta(hours=6)  # while the main process tokenises; one that ends is noticed at once
BATCHES_A_QUESTION = 8  # of an evaluation on GPUs, which wait for each other to answer whether to stop


def make_accelerator(device: str) -> Accelerator:
    """Return the process's accelerator for auto, cpu, cuda or mps, in the process group its environment describes.

    Its own mixed precision and accumulation stay off: the loop does both. Raises UsageError for a missing device.
    """
    is_cpu = choose_device(device).type == "cpu"
    ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    asked = os.environ.pop(sharding.ASKED, None)  # what it would shard by itself, we do
    try:
        accelerator = Accelerator(cpu=is_cpu, mixed_precision="no", kwargs_handlers=[ddp, patience])
    finally:
        if asked is not None:
            os.environ[sharding.ASKED] = asked
    if device in ("cuda", "mps") and accelerator.device.type != device:
        raise UsageError(f"Accelerate chose {accelerator.device}", where="--device", fix="leave --device out")
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:  # each would take itself for the only one
        message = f"{launched} processes were launched, Accelerate sees {accelerator.num_processes}"
        raise UsageError(message, where="WORLD_SIZE", fix="launch with torchrun or accelerate launch")
    if launched > 1:
        atexit.register(_leave_group)
        watch_next_rank(accelerator)
    return accelerator


def _leave_group() -> None:
    """Stop the group's threads: one that still runs when the interpreter ends would abort the process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def on_main_process(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Return on every process what `work` returned on the main one, or raise there the error it raised."""
    results = on_every_process(accelerator, lambda: work() if accelerator.is_main_process else None)
    return cast("T", results[0])


def on_every_process(accelerator: Accelerator, work: Callable[[], T]) -> list[T]:
    """Return what `work` returned on each process, or raise on all the first of the errors it raised."""
    if accelerator.num_processes == 1:
        return [work()]
    outcome: tuple[T | None, GptkitError | None]
    try:
        outcome = work(), None
    except GptkitError as error:
        outcome = None, error
    except Exception as error:
        process = "the main process" if accelerator.is_main_process else f"process {accelerator.process_index}"
        gather_object([(None, OtherRankFailed(f"{process} failed: {error!r}"))])
        raise
    outcomes = gather_object([outcome])
    for _, failure in outcomes:
        if failure is not None:
            raise failure
    return [result for result, _ in outcomes]


def main_process_first(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Return what `work` returns on each process; the main one goes first, and what it raises all raise."""
    found: list[T] = []
    on_main_process(accelerator, lambda: found.append(work()))
    return found[0] if found else work()


def all_reduce(accelerator: Accelerator, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    """Return the sum, smallest or largest of `values` over all processes."""
    if accelerator.num_processes > 1:
        dist.all_reduce(values, op=operation)
    return values


class AgreedStop:
    """The stop requests of all processes as one, so that all stop at the same place, whoever the signal came to.

    What asks must be called on every process equally often.
    """

    def __init__(self, stop: StopRequest, accelerator: Accelerator) -> None:
        self.stop, self.accelerator = stop, accelerator

    def signal_number(self) -> int:
        """Return the signal that any process received, 0 for none."""
        if self.accelerator.num_processes == 1:
            return self.stop.signal_number
        number = torch.tensor(self.stop.signal_number, device=self.accelerator.device)
        return int(all_reduce(self.accelerator, number, dist.ReduceOp.MAX))

    def for_evaluation(self) -> ShouldStop:
        """Return what an evaluation asks before each of its batches; on a CPU, where a batch is long, always anew."""
        if self.accelerator.num_processes == 1:
            return lambda: self.stop.is_asked
        every = 1 if self.accelerator.device.type == "cpu" else BATCHES_A_QUESTION
        turns = itertools.count()
        return lambda: next(turns) % every == 0 and self.signal_number() != 0
