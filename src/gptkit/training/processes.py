"""Processes of one run, through Accelerate: who they are, and how they agree."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from gptkit.errors import GptkitError, OtherRankFailed, UsageError
from gptkit.training import sharding
from gptkit.training.stall_watch import watch_next_rank

T = TypeVar("T")

PATIENCE = timedelta(hours=6)  # while the main process tokenises; one that ends is noticed at once


def make_accelerator(device: str) -> Accelerator:
    """Return the process's accelerator for auto, cpu, cuda or mps, in the process group its environment describes.

    Its own mixed precision and accumulation stay off: the loop does both. Raises UsageError for a device that is not
    there.
    """
    is_there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not is_there.get(device, True):
        raise UsageError(f"no {device} device is here", where="--device", fix="leave it out, or use --device cpu")
    is_cpu = device == "cpu" or (device == "auto" and not any(is_there.values()))
    ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    with _unasked(sharding.ASKED):  # what it would shard by itself, we do
        accelerator = Accelerator(cpu=is_cpu, mixed_precision="no", kwargs_handlers=[ddp, patience])
    if device in is_there and accelerator.device.type != device:
        raise UsageError(f"Accelerate chose {accelerator.device}", where="--device", fix="leave --device out")
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:  # each would take itself for the only one
        message = f"{launched} processes were launched, Accelerate sees {accelerator.num_processes}"
        raise UsageError(message, where="WORLD_SIZE", fix="launch with torchrun or accelerate launch")
    if launched > 1:
        atexit.register(_leave_group)
        watch_next_rank(accelerator)
    return accelerator


@contextmanager
def _unasked(name: str) -> Iterator[None]:
    """Take a variable out of the environment for a while."""
    before = os.environ.pop(name, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before


def _leave_group() -> None:
    """Stop the group's threads: one that still runs when the interpreter ends would abort the process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def on_main_process(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Return on every process what `work` returned on the main one, or raise there the error it raised."""
    if accelerator.num_processes == 1:
        return work()
    outcome: list[object] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = work()
        except GptkitError as error:
            outcome[1] = error
        except Exception as error:
            broadcast_object_list([None, OtherRankFailed(f"the main process failed: {error!r}")])
            raise
    result, failure = broadcast_object_list(outcome)
    if failure is not None:
        raise failure
    return result  # type: ignore[no-any-return]


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
        gather_object([(None, OtherRankFailed(f"process {accelerator.process_index} failed: {error!r}"))])
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
