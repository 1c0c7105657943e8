"""What may not change about a run: its config.yaml, the identity in its checkpoints, and how it may get more steps.

A run that is given more steps ends as one begun with the larger number, bit for bit, because it continues from a
checkpoint up to which the learning rate does not depend on the number of steps.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gptkit.errors import UsageError
from gptkit.options import fields_of
from gptkit.recipes import CONFIG_HEADER, FLAGS_ONLY, read_recipe, refuse_foreign_config
from gptkit.system.run_layout import MODEL, START, described_in
from gptkit.training.checkpoints import RunState
from gptkit.training.options import TrainingOptions
from gptkit.training.schedules import steps_before_decay

STEPS = "steps"
DESCRIBED = ("model", "task")  # by a file
PATHS = ("data", "validation", "model", "tokenizer", "task", "accelerate_config")


def refuse_changes(config: Path, options: TrainingOptions, command: str) -> bool:
    """Raise UsageError naming each identity option that differs from the run's, with its old and its new value.

    Return whether the one that does is `steps`, raised as the schedule allows.
    """
    refuse_foreign_config(config, command)
    fixed = {name: field.default for name, field in fields_of(type(options)).items() if not field.metadata["resumable"]}
    stored: dict[str, Any] = fixed | read_recipe(config, type(options))
    given: dict[str, Any] = fixed | _config_values(options)
    changed = [name for name in fixed if stored[name] != given[name]]
    if not changed:
        return False
    told = [f"{name} was {_shown(stored[name])}, is {_shown(given[name])}" for name in changed]
    if changed == [STEPS] and asks_for_more_steps(options, stored[STEPS]):
        if steps_before_decay(options.schedule, stored[STEPS], options.decay_steps):
            return True
        if options.schedule == "wsd":
            told.append(f"wsd with decay_steps {options.decay_steps} decays from the first step on")
        else:
            rest = "depends on the total; only constant and wsd runs can be given more steps"
            told.append(f"the {options.schedule} schedule {rest}")
    if changed == ["epochs"]:
        told.append("a fine-tuning run is planned for all its epochs")
    fix = "give the run's own values, or start a new run with another --out"
    raise UsageError(f"the run was made with other options: {'; '.join(told)}", where=str(config), fix=fix)


def asks_for_more_steps(options: TrainingOptions, was: object) -> bool:
    """Say whether the options ask for more steps than a run had; fine-tuning counts epochs, and has no such option."""
    now = getattr(options, STEPS, None)
    return isinstance(now, int) and isinstance(was, int) and now > was


def _steps_before_more(state: RunState, options: TrainingOptions) -> int | None:
    """Return the steps of the run that wrote a checkpoint, where these options continue it with more."""
    was = int(state.identity.get(STEPS, 0))
    can_be = steps_before_decay(options.schedule, was, options.decay_steps) > 0
    return was if can_be and asks_for_more_steps(options, was) else None


def continues(state: RunState, options: TrainingOptions) -> bool:
    """Say whether a run with these options can continue from a checkpoint; False for one in a shorter run's decay.

    True where the options are another run's: `refuse_other_identity` says in what.
    """
    was = _steps_before_more(state, options)
    return was is None or state.step <= steps_before_decay(options.schedule, was, options.decay_steps)


def identity_before(identity: Mapping[str, str], state: RunState, options: TrainingOptions) -> Mapping[str, str]:
    """Return the identity that the checkpoint must have: this run's, but for steps that were raised."""
    return identity if _steps_before_more(state, options) is None else {**identity, STEPS: state.identity[STEPS]}


def config_text(options: TrainingOptions, command: str) -> str:
    """Return the recipe that repeats a run."""
    values = {
        name: list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        for name, value in _config_values(options).items()
    }
    return f"{CONFIG_HEADER.format(command=command)}\n{yaml.safe_dump(values, sort_keys=False)}"


def identity_values(options: TrainingOptions) -> dict[str, str]:
    """Return the identity options as a checkpoint keeps them, so that an edited config.yaml is found out.

    Files may move. What data and tokenizers hold the caller hashes; of a model and a task the file that describes it is
    hashed here.
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
    """Return the options that a recipe holds, unset ones left out, files and directories absolute."""
    values = {name: getattr(options, name) for name in fields_of(type(options)) if name not in FLAGS_ONLY | {"out"}}
    for name in values.keys() & set(PATHS):
        values[name] = _absolute(values[name], name)
    return {name: value for name, value in values.items() if value is not None}


def _absolute(value: Any, name: str) -> Any:
    """Return paths made absolute; names of the hub, of presets and of tasks stay, and so do numbers."""
    if isinstance(value, tuple):
        return tuple(_absolute(part, name) for part in value)
    if isinstance(value, Path):
        return Path(os.path.abspath(value))
    if not isinstance(value, str) or value.startswith("hf:"):
        return value
    if name in ("task", "accelerate_config"):  # a folder may be called what a task or a shipped file is
        is_path = value.endswith((".yaml", ".yml", ".json"))
    else:
        is_path = name == "data" or os.path.exists(value)
    return os.path.abspath(os.path.expanduser(value)) if is_path else value
