"""From the options that every run has to when it does what, and at which rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gptkit.training.options import TrainingOptions
from gptkit.training.rules import Choices
from gptkit.training.run_identity import identity_values
from gptkit.training.schedules import Schedule, learning_rate_factor

SNAPSHOTS, SMALL_MODEL = 8, 50_000_000  # parameters below which snapshots cost little


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When a run does what, and in which arithmetic (as `rules` chose it); every `*_every` counts steps.

    `compile` says that the caller's model compiles itself at its first call: every shape is then run once before
    the first step, and evaluations, whose shapes would be compiled as well, run as written. `best_by` names a metric of
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
