"""What a verb hands to the training loop, and what the loop tells while it trains.

A job is a model, its batches and loss, an optimizer, and the plan of when to do what, made from the options that every
run has. Of one step the events come in this order: evaluation, row, checkpoint. The last event of a run that came to
its end is the state in which it did.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gptkit.training.batches import Batch, Batches, MicroBatch, ShouldStop
from gptkit.training.checkpoints import RunState
from gptkit.training.optimizers import OptimizerSet
from gptkit.training.options import TrainingOptions
from gptkit.training.rules import Choices
from gptkit.training.run_identity import identity_values
from gptkit.training.schedules import Schedule, learning_rate_factor

SNAPSHOTS, SMALL_MODEL = 8, 50_000_000  # parameters below which snapshots cost little

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
class Plan:
    """When a run does what, and in which arithmetic (as `rules` chose it); every `*_every` counts steps.

    With `compile` the model's blocks are compiled, and every shape is run once before the first step; evaluations,
    whose shapes would be compiled as well, run eagerly. `best_by` names a metric of
    the evaluation: the step where it is highest, the earliest of equals, is saved and kept. `skip_spikes` leaves steps
    out whose loss or gradient leaps (see `step.SpikeHistory`). `identity` (the options that may not change, hashes of
    data and tokenizer) and `choices` go into every checkpoint; a resumed run whose identity differs is refused.
    """

    steps: int
    log_every: int = 10
    eval_every: int | None = None
    save_every: int | None = None
    keep_checkpoints: int = 2
    snapshots: int = 0
    decay_start: int | None = None
    clip_norm: float = 1.0
    seed: int = 0
    precision: str = "fp32"
    compile: bool = False
    best_by: str | None = None
    skip_spikes: bool = False
    identity: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)

    def is_eval_due(self, step: int) -> bool:
        return step == self.steps or _divides(self.eval_every, step)

    def is_save_due(self, step: int) -> bool:
        return step in (self.steps, self.decay_start) or _divides(self.save_every, step)

    def is_snapshot_due(self, step: int) -> bool:
        return step * self.snapshots // self.steps > (step - 1) * self.snapshots // self.steps

    def is_log_due(self, step: int) -> bool:
        return step in (1, self.steps) or _divides(self.log_every, step)


def _divides(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training run of any verb.

    `loss_function(model, batch, count)` returns the sum of a micro-batch's losses over the count of the whole step (a
    float32 scalar on the device), so that gradients of micro-batches and processes add up.
    `evaluate(should_stop)` returns metrics; it runs on every process, in eval mode and without gradients.
    `compile_blocks(model)` has the blocks of the model, or of its sharded copy, compiled at their first call.
    """

    model: nn.Module
    loss_function: LossFunction
    micro_batching: MicroBatching
    optimizer: OptimizerSet
    schedule: Schedule
    plan: Plan
    evaluate: Evaluate | None = None
    compile_blocks: Callable[[nn.Module], None] = lambda model: None
    flops_per_token: float = 0.0


def snapshots_of(options: TrainingOptions, parameters: int) -> int:
    """Return how many snapshots a run keeps: as asked, else SNAPSHOTS of a small model."""
    if options.snapshots is not None:
        return options.snapshots
    return SNAPSHOTS if parameters < SMALL_MODEL else 0


def make_plan(
    options: TrainingOptions,
    choices: Choices,
    *,
    steps: int,
    eval_every: int,
    parameters: int,
    identity: Mapping[str, str],
    best_by: str | None = None,
    decay_start: int | None = None,
) -> Plan:
    """Return the plan of `steps` updates; `eval_every` counts where no option does, `identity` adds to the options'."""
    evaluate_every = options.eval_every or eval_every
    return Plan(
        steps=steps,
        log_every=options.log_every,
        eval_every=evaluate_every,
        save_every=options.save_every or evaluate_every,
        keep_checkpoints=options.keep_checkpoints,
        snapshots=snapshots_of(options, parameters),
        decay_start=decay_start,
        clip_norm=options.clip_norm,
        seed=options.seed,
        precision=choices.precision,
        compile=choices.compile,
        best_by=best_by,
        skip_spikes=options.on_spike == "skip",
        identity={**identity_values(options), **identity},
        choices=choices.facts(),
    )


def make_schedule(options: TrainingOptions, *, steps: int, warmup_steps: float) -> Schedule:
    """Return the learning rate of each step as a share of the peak."""
    return lambda step: learning_rate_factor(
        options.schedule,
        step,
        total_steps=steps,
        warmup_steps=warmup_steps,
        decay_steps=options.decay_steps,
        final=options.final_learning_rate,
    )


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """A row of metrics.jsonl; `evaluation` holds what the evaluation of the same step returned, if there was one.

    `loss` is the exact loss of this step over all micro-batches and processes, `tokens` counts from the run's start,
    `tokens_per_second` leaves out compiling, evaluating and saving since the last row, `data_seconds` is how long the
    main process waited for batches since then, `skipped_steps` how many steps were spikes and not taken, from the run's
    start, where that is asked for.
    """

    step: int
    tokens: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    elapsed_seconds: float
    data_seconds: float
    evaluation: Mapping[str, float] = field(default_factory=dict)
    skipped_steps: int | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> StepEvent:
        """Return the row that a checkpoint of any version keeps: what is added from now on needs a default."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in row.items() if name in known})

    def as_row(self) -> dict[str, float | None]:
        """Return the row, its evaluation spread out; what JSON cannot say (the norm of an fp16 overflow) is None."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        values |= values.pop("evaluation")
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    def figures(self) -> dict[str, str]:
        """Return what a display of progress shows of it."""
        return {
            "loss": f"{self.loss:.4f}",
            "lr": f"{self.learning_rate:.2e}",
            "tokens/s": f"{self.tokens_per_second:,.0f}",
        }


@dataclass(frozen=True)
class EvalEvent:
    """An evaluation after `step`: what the caller's function returned, and the seconds it took."""

    step: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class CheckpointEvent:
    """A checkpoint is committed."""

    step: int
    path: Path
    seconds: float


@dataclass(frozen=True)
class NoticeEvent:
    """A line for the log."""

    message: str


Event = StepEvent | EvalEvent | CheckpointEvent | NoticeEvent | RunState
