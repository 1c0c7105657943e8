"""A stop that all processes of a run make at the same place, whichever of them the signal came to."""

from __future__ import annotations

import itertools

import torch
import torch.distributed as dist
from accelerate import Accelerator

from gptkit.system.signals import StopRequest
from gptkit.training.batches import ShouldStop
from gptkit.training.processes import all_reduce

BATCHES_A_QUESTION = 8  # of an evaluation on GPUs, which wait for each other to answer it


class AgreedStop:
    """The stop requests of all processes as one; what asks must be called on every process equally often."""

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
