"""The interface of the training loop: the job that a command gives it, and the events that it yields.

A job is a model with its batches and loss, an optimizer, a schedule, and a plan of when to log, evaluate and save. The
events of one step come in this order: evaluation, row, checkpoint. A run that finishes yields its RunState last.
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

SNAPSHOTS, SMALL_MODEL = 8, 50_000_000  # by default; parameters below which snapshots cost little

LossFunction = Callable[[nn.Module, Batch, Tensor], Tensor]  # model, batch, count of the step -> sum of losses / count
Evaluate = Callable[[ShouldStop], Mapping[str, float]]  # raises StopEvaluation when should_stop() returns True


@dataclass(frozen=True, kw_only=True)
class MicroBatching:
    """How the global batches are split into passes of at most `micro_batch` rows; `unit` is the plural name of a row.

    `batches_of(rows)` returns the batches in passes of at most `rows` rows, `largest(rows)` the passes that need the
    most memory, for a trial before the first step; without it there is no trial.
    """

    batches_of: Callable[[int], Batches]
    micro_batch: int = 1
    largest: Callable[[int], list[MicroBatch]] | None = None
    has_dropout: bool = False
    unit: str = "sequences"

    @property
    def batches(self) -> Batches:
        """The batches as they are split unless memory runs out."""
        return self.batches_of(self.micro_batch)

    def at_most(self, rows: int | None) -> MicroBatching:
        """Return the same with passes of at most `rows`, if memory was found to allow no more."""
        return self if rows is None else dataclasses.replace(self, micro_batch=min(self.micro_batch, rows))

    def shrink_notice(self, fitting: int) -> str:
        """Return the log line for a micro-batch that was reduced to `fitting` rows."""
        dropout = "; a different micro-batch changes the dropout masks" if self.has_dropout else ""
        shrunk = f"out of memory with {self.micro_batch} {self.unit} per forward pass: using {fitting}"
        return f"{shrunk}, with the same tokens per step{dropout}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When a run logs, evaluates and saves, and how it computes (chosen by `rules`); every `*_every` counts steps.

    With `compile` the model's blocks are compiled, and every shape is run once before the first step; evaluations,
    whose shapes would be compiled as well, run eagerly. `best_by` names a metric of the evaluation: the first step at
    which it is highest is saved and kept. `skip_spikes` skips steps whose loss or gradient norm spikes (see
    `step.SpikeHistory`). `identity` (the options that may not change, hashes of data and tokenizer) and `choices` are
    saved in every checkpoint; a resumed run with a different identity is refused.
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
    """All that the loop needs for one training run.

    `loss_function(model, batch, count)` returns the sum of a micro-batch's losses divided by the `count` of the whole
    step (a float32 scalar on the device), so that gradients add up over micro-batches and processes.
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
    """Return how many snapshots a run keeps: as the option says, else SNAPSHOTS for a small model."""
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
    """Return the plan of `steps` updates; `eval_every` is the option's default, `identity` is added to the options'."""
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
    """Return the schedule that the options name."""
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
    """A row of metrics.jsonl; `evaluation` holds the metrics of this step's evaluation, if there was one.

    `loss` is the loss of this step over all micro-batches and processes. `tokens` counts from the run's start.
    `tokens_per_second` is the rate since the last row, without the time for compiling, evaluating and saving.
    `data_seconds` is how long the main process waited for batches since the last row. `skipped_steps` counts skipped
    spikes from the run's start; None unless `--on-spike skip`.
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
        """Read the row in a checkpoint, which another version may have written: new fields need a default."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in row.items() if name in known})

    def as_row(self) -> dict[str, float | None]:
        """Return the row with the evaluation's metrics as keys; NaN and infinity (of an fp16 overflow) become None."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        values |= values.pop("evaluation")
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    def figures(self) -> dict[str, str]:
        """Return what the progress display shows, by label."""
        return {
            "loss": f"{self.loss:.4f}",
            "lr": f"{self.learning_rate:.2e}",
            "tokens/s": f"{self.tokens_per_second:,.0f}",
        }


@dataclass(frozen=True)
class EvalEvent:
    """An evaluation after `step`: its metrics, and how long it took."""

    step: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class CheckpointEvent:
    """A checkpoint was committed."""

    step: int
    path: Path
    seconds: float


@dataclass(frozen=True)
class NoticeEvent:
    """A message for the log."""

    message: str


Event = StepEvent | EvalEvent | CheckpointEvent | NoticeEvent | RunState
