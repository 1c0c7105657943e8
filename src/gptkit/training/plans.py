"""From the options that every run has to when it does what, and at which rate."""

from __future__ import annotations

from collections.abc import Mapping

from gptkit.options import TrainingOptions
from gptkit.training.loop import Plan
from gptkit.training.rules import Choices
from gptkit.training.run_directory import identity_values
from gptkit.training.schedules import Schedule, learning_rate_factor


def make_plan(
    options: TrainingOptions,
    choices: Choices,
    *,
    steps: int,
    eval_every: int,
    identity: Mapping[str, str],
    resume_line: str,
    best_by: str | None = None,
) -> Plan:
    """Return the plan of `steps` updates; `eval_every` counts where no option does, `identity` adds to the options'."""
    evaluate_every = options.eval_every or eval_every
    return Plan(
        steps=steps,
        log_every=options.log_every,
        eval_every=evaluate_every,
        save_every=options.save_every or evaluate_every,
        keep_checkpoints=options.keep_checkpoints,
        clip_norm=options.clip_norm,
        seed=options.seed,
        precision=choices.precision,
        compile=choices.compile,
        best_by=best_by,
        resume_line=f"to go on: {resume_line}",
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
