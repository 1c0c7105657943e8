"""What a verb hands to the training loop: a model, its batches and loss, an optimizer, and when to do what."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from gptkit.training.batches import Batch, Batches, MicroBatch, ShouldStop
from gptkit.training.optimizers import OptimizerSet
from gptkit.training.plans import Plan
from gptkit.training.schedules import Schedule

LossFunction = Callable[[nn.Module, Batch, Tensor], Tensor]  # model, batch, count of the step -> sum of losses / count
Evaluate = Callable[[ShouldStop], Mapping[str, float]]  # raises StopEvaluation once it is told to stop


@dataclass(frozen=True, kw_only=True)
class MicroBatching:
    """How the batches of a run are split into passes of at most `micro_batch` rows; `unit` is what a row is called.

    `batches_of` gives the same batches in smaller passes, `largest` those passes of them that need the most memory;
    without it memory is not tried before the first step.
    """

    batches_of: Callable[[int], Batches]
    micro_batch: int = 1
    largest: Callable[[int], list[MicroBatch]] | None = None
    has_dropout: bool = False
    unit: str = "sequences"

    @property
    def batches(self) -> Batches:
        """Return the batches as they are split unless memory runs out."""
        return self.batches_of(self.micro_batch)

    def at_most(self, rows: int | None) -> MicroBatching:
        """Return the same with passes of at most `rows`, where memory was found to allow no more."""
        return self if rows is None else dataclasses.replace(self, micro_batch=min(self.micro_batch, rows))

    def shrink_notice(self, fitting: int) -> str:
        """Return the line that says what was changed."""
        dropout = "; another micro-batch draws other dropout" if self.has_dropout else ""
        shrunk = f"out of memory with {self.micro_batch} {self.unit} per forward pass: using {fitting}"
        return f"{shrunk}, with the same tokens per step{dropout}"


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training run of any verb.

    `loss_function(model, batch, count)` returns the sum of a micro-batch's losses over the count of the whole step (a
    float32 scalar on the device), so that gradients of micro-batches and processes add up.
    `evaluate(should_stop)` returns metrics; it runs on every process, in eval mode and without gradients.
    """

    model: nn.Module
    loss_function: LossFunction
    micro_batching: MicroBatching
    optimizer: OptimizerSet
    schedule: Schedule
    plan: Plan
    evaluate: Evaluate | None = None
    flops_per_token: float = 0.0
