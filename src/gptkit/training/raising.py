"""Continuing a run with more steps than it was begun with.

The result is that of a run begun with the larger number, bit for bit, because it continues from a checkpoint up to
which the learning rate does not depend on the number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping

from gptkit.training.checkpoints import TrainingState
from gptkit.training.options import TrainingOptions
from gptkit.training.schedules import steps_before_decay

STEPS = "steps"


def is_raised(options: TrainingOptions, was: object) -> bool:
    """Say whether the options ask for more steps than a run had; fine-tuning counts epochs, and has no such option."""
    now = getattr(options, STEPS, None)
    return isinstance(now, int) and isinstance(was, int) and now > was


def refusal(options: TrainingOptions, was: int) -> str | None:
    """Return why a run of `was` steps cannot be continued with more, None where it can."""
    if _shared_steps(options, was):
        return None
    if options.schedule == "wsd":
        return f"wsd with decay_steps {options.decay_steps} decays from the first step on"
    return f"the {options.schedule} schedule depends on the total; only constant and wsd runs can be given more steps"


def continues(state: TrainingState, options: TrainingOptions) -> bool:
    """Say whether a run with these options can continue from a checkpoint; False for one in a shorter run's decay.

    True where the options are another run's: `refuse_other_identity` says in what.
    """
    was = _steps_of(state)
    if not is_raised(options, was) or refusal(options, was) is not None:
        return True
    return state.step <= _shared_steps(options, was)


def identity_before(identity: Mapping[str, str], state: TrainingState, options: TrainingOptions) -> Mapping[str, str]:
    """Return the identity that the checkpoint must have: this run's, but for steps that were raised."""
    was = _steps_of(state)
    if is_raised(options, was) and refusal(options, was) is None:
        return {**identity, STEPS: state.identity[STEPS]}
    return identity


def _steps_of(state: TrainingState) -> int:
    """Return the steps of the run that wrote a checkpoint, none for a state without."""
    return int(state.identity.get(STEPS, 0))


def _shared_steps(options: TrainingOptions, was: int) -> int:
    return steps_before_decay(options.schedule, was, options.decay_steps)
