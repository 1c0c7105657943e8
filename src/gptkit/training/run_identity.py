"""Which options of a run may not change: compare config.yaml and checkpoints with the options given now.

A run may be given more steps. It then ends bit for bit as if started with the larger number, because it continues from
a checkpoint up to which the learning rate does not depend on the number of steps.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptkit.errors import UsageError
from gptkit.options import fields_of
from gptkit.recipes import CONFIG_HEADER, FLAGS_ONLY, read_recipe, refuse_foreign_config
from gptkit.system.run_layout import MODEL, START, described_in
from gptkit.system.writing import yaml_text
from gptkit.training.options import TrainingOptions
from gptkit.training.schedules import steps_before_decay

if TYPE_CHECKING:
    from gptkit.training.checkpoints import RunState

STEPS = "steps"
DESCRIBED = ("model", "task")  # whose file is hashed
PATHS = ("data", "validation", "model", "tokenizer", "task", "accelerate_config")


def refuse_changes(config: Path, options: TrainingOptions, command: str) -> bool:
    """Raise UsageError if any option that may not change differs from the run's, with old and new values.

    Return True if only `steps` differs, raised as the schedule allows.
    """
    refuse_foreign_config(config, command)
    fixed = {name: field.default for name, field in fields_of(type(options)).items() if not field.metadata["resumable"]}
    stored: dict[str, Any] = fixed | read_recipe(config, type(options))
    given: dict[str, Any] = fixed | _config_values(options)
    changed = [name for name in fixed if stored[name] != given[name]]
    if not changed:
        return False
    reasons = [f"{name} was {_shown(stored[name])}, now {_shown(given[name])}" for name in changed]
    if changed == [STEPS] and asks_for_more_steps(options, stored[STEPS]):
        if steps_before_decay(options.schedule, stored[STEPS], options.decay_steps):
            return True
        if options.schedule == "wsd":
            reasons.append(f"wsd with decay_steps {options.decay_steps} decays from the first step on")
        else:
            rest = "depends on the total; only constant and wsd runs can be given more steps"
            reasons.append(f"the {options.schedule} schedule {rest}")
    if changed == ["epochs"]:
        reasons.append("a fine-tuning run cannot be given more epochs")
    fix = "use the run's own values, or start a new run with another --out"
    raise UsageError(f"the run was started with different options: {'; '.join(reasons)}", where=str(config), fix=fix)


def asks_for_more_steps(options: TrainingOptions, was: object) -> bool:
    """Return whether the options ask for more steps than `was`; False for fine-tuning, which counts epochs."""
    now = getattr(options, STEPS, None)
    return isinstance(now, int) and isinstance(was, int) and now > was


def _steps_before_more(state: RunState, options: TrainingOptions) -> int | None:
    """Return the steps of the run that wrote a checkpoint if these options continue it with more, else None."""
    was = int(state.identity.get(STEPS, 0))
    can_be = steps_before_decay(options.schedule, was, options.decay_steps) > 0
    return was if can_be and asks_for_more_steps(options, was) else None


def continues(state: RunState, options: TrainingOptions) -> bool:
    """Return whether a run with these options can continue from a checkpoint: not from within a shorter run's decay.

    Other differences are for `refuse_other_identity` to report.
    """
    was = _steps_before_more(state, options)
    return was is None or state.step <= steps_before_decay(options.schedule, was, options.decay_steps)


def identity_before(identity: Mapping[str, str], state: RunState, options: TrainingOptions) -> Mapping[str, str]:
    """Return the identity that the checkpoint must have: this run's, but with its old steps if they were raised."""
    return identity if _steps_before_more(state, options) is None else {**identity, STEPS: state.identity[STEPS]}


def config_text(options: TrainingOptions, command: str) -> str:
    """Return the recipe that repeats a run, the text of config.yaml."""
    values = {
        name: list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        for name, value in _config_values(options).items()
    }
    return f"{CONFIG_HEADER.format(command=command)}\n{yaml_text(values)}"


def identity_values(options: TrainingOptions) -> dict[str, str]:
    """Return the options that may not change as a checkpoint stores them, so that an edited config.yaml is detected.

    Paths are left out, as files may move: the caller hashes data and tokenizer, this hashes the file that describes a
    model or a task.
    """
    values = _config_values(options)
    return {
        name: _kept(values.get(name, field.default), name)
        for name, field in fields_of(type(options)).items()
        if not field.metadata["resumable"] and name != "data"
    }


def _shown(value: object) -> str:
    return "unset" if value is None else str(list(value) if isinstance(value, tuple) else value)


def _kept(value: Any, name: str) -> str:
    if name not in PATHS or not os.path.isabs(str(value)):
        return _shown(value)
    if name not in DESCRIBED:
        return "a path"
    path = Path(value)
    folders = (described_in(path), path / START, path, path / MODEL)
    files_of_it = (path, *(folder / "config.json" for folder in folders))
    found = next((file for file in files_of_it if file.is_file()), None)
    return f"of sha256 {hashlib.sha256(found.read_bytes()).hexdigest()}" if found else "a path"


def _config_values(options: TrainingOptions) -> dict[str, Any]:
    """Return the options that a recipe holds, without unset ones, with absolute paths."""
    values = {name: getattr(options, name) for name in fields_of(type(options)) if name not in FLAGS_ONLY | {"out"}}
    for name in values.keys() & set(PATHS):
        values[name] = _absolute(values[name], name)
    return {name: value for name, value in values.items() if value is not None}


def _absolute(value: Any, name: str) -> Any:
    """Make paths absolute; leave names of presets, tasks and the hub, and numbers, as they are."""
    if isinstance(value, tuple):
        return tuple(_absolute(part, name) for part in value)
    if isinstance(value, Path):
        return Path(os.path.abspath(value))
    if not isinstance(value, str) or value.startswith("hf:"):
        return value
    if name in ("task", "accelerate_config"):  # a folder may have the name of a task or shipped file
        is_path = value.endswith((".yaml", ".yml", ".json"))
    else:
        is_path = name == "data" or os.path.exists(value)
    return os.path.abspath(os.path.expanduser(value)) if is_path else value
