"""The micro-batch that fits into a GPU's memory, found before the first step: halved until the largest passes run.

A step keeps its rows, and with them its tokens: it is cut into more passes.
"""

from __future__ import annotations

import gc

import torch
import torch.distributed as dist

from gptkit.errors import OutOfResources
from gptkit.system.limits import is_out_of_memory
from gptkit.training.batches import MicroBatch
from gptkit.training.processes import all_reduce
from gptkit.training.step import Trainer

FIX = "use a GPU with more memory, a smaller model or sequence length, or --accelerate-config fsdp2"


def may_run_out(device: torch.device) -> bool:
    """Say whether a device refuses what it has no memory for; a CPU's system ends the process instead."""
    return device.type == "cuda"


def fitting_micro_batch(trainer: Trainer, step: int) -> int:
    """Return the most rows, a halving of the job's micro-batch, that every process has the memory for.

    Nothing is left of the trials but the optimizer's state, which is made now, and empty. Raises OutOfResources where
    not even one row fits.
    """
    micro_batching = trainer.job.micro_batching
    assert micro_batching.largest is not None
    size = micro_batching.micro_batch
    while not _fits_everywhere(trainer, micro_batching.largest(size), step):
        if size == 1:
            message = f"out of memory with a single one of the {micro_batching.unit} per forward pass"
            raise OutOfResources(message, fix=FIX)
        size //= 2
    return size


def _fits_everywhere(trainer: Trainer, passes: list[MicroBatch], step: int) -> bool:
    fits = torch.tensor(int(_fits(trainer, passes, step)), device=trainer.accelerator.device)
    return bool(all_reduce(trainer.accelerator, fits, dist.ReduceOp.MIN))


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
    if trainer.accelerator.device.type == "cuda":
        torch.cuda.empty_cache()
    return False
