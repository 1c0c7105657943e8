"""The micro-batch that fits into a GPU's memory, found before the first step: halved until the fullest passes run.

A step keeps its rows, and with them its tokens: it is cut into more passes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from gptkit.errors import OutOfResources
from gptkit.training.batches import Batches, MicroBatch
from gptkit.training.memory import is_out_of_memory
from gptkit.training.processes import all_reduce
from gptkit.training.step import Machinery, warm_up

FIX = "use a GPU with more memory, a smaller model or sequence length, or --accelerate-config fsdp2"


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How the batches of a run are cut: into passes of at most `micro_batch` rows, `unit` is what a row is called.

    `cut` gives the same batches in smaller passes, `fullest` those passes of them that need the most memory.
    """

    micro_batch: int
    cut: Callable[[int], Batches]
    fullest: Callable[[int], list[MicroBatch]]
    has_dropout: bool
    unit: str = "sequences"

    @property
    def batches(self) -> Batches:
        """Return the batches as they are cut unless memory runs out."""
        return self.cut(self.micro_batch)

    def notice(self, fitting: int) -> str:
        """Return the line that says what was changed."""
        drawn = "; another micro-batch draws other dropout" if self.has_dropout else ""
        told = f"memory ran out with {self.micro_batch} {self.unit} a forward pass: {fitting} from now on"
        return f"{told}, and as many tokens a step{drawn}"


def may_run_out(device: torch.device) -> bool:
    """Say whether a device refuses what it has no memory for; a CPU's system ends the process instead."""
    return device.type == "cuda"


def fitting_micro_batch(machinery: Machinery, cutting: Cutting, step: int) -> int:
    """Return the most rows, a halving of `cutting.micro_batch`, that every process has the memory for.

    Nothing is left of the trials but the optimizer's state, which is made now, and empty. Raises OutOfResources where
    not even one row fits.
    """
    size = cutting.micro_batch
    while not _fits_everywhere(machinery, cutting.fullest(size), step):
        if size == 1:
            raise OutOfResources(f"memory ran out with a single one of the {cutting.unit} a forward pass", fix=FIX)
        size //= 2
    return size


def _fits_everywhere(machinery: Machinery, passes: list[MicroBatch], step: int) -> bool:
    fits = torch.tensor(int(_fits(machinery, passes, step)), device=machinery.accelerator.device)
    return bool(all_reduce(machinery.accelerator, fits, dist.ReduceOp.MIN))


def _fits(machinery: Machinery, passes: list[MicroBatch], step: int) -> bool:
    try:
        warm_up(machinery, step, sum(one.count for one in passes), passes, with_optimizer=True)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    # Outside of the handler, whose traceback holds on to the tensors.
    machinery.drop_gradients()
    gc.collect()
    if machinery.accelerator.device.type == "cuda":
        torch.cuda.empty_cache()
    return False
