"""Opening a run's directory: what may be one, its config.yaml, and the options that may not change from then on."""

from __future__ import annotations

import hashlib
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from gptkit.errors import AGAIN, InputError, UsageError
from gptkit.options import fields_of
from gptkit.recipes import CONFIG, CONFIG_HEADER, FLAGS_ONLY, read_recipe, refuse_foreign_config
from gptkit.system import files
from gptkit.system.run_layout import CHECKPOINTS, MODEL, RESULT, SNAPSHOTS, START, described_in
from gptkit.training import raising
from gptkit.training.checkpoints import DAMAGED
from gptkit.training.manifests import METRICS
from gptkit.training.options import TrainingOptions
from gptkit.training.run_directory import DIVERGED, RunDirectory
from gptkit.training.run_lock import LOCK, RunLock

DESCRIBED = ("model", "task")  # by a file
PATHS = ("data", "validation", "model", "tokenizer", "task", "accelerate_config")
OTHER_OUT = "choose another --out"
FILES = (LOCK, CONFIG, METRICS, DIVERGED, RESULT)
FOLDERS = (CHECKPOINTS, f"{CHECKPOINTS}/{DAMAGED}", MODEL, SNAPSHOTS, START)
LINKS = (CHECKPOINTS, MODEL, SNAPSHOTS)  # which may lead to folders of the user's


def open_run(options: TrainingOptions, *, command: str, name: str, root: Path = Path("runs")) -> RunDirectory:
    """Return the run that these options begin, go on with, or have finished; the main process alone calls this.

    Without `out` it is a new `root/<command>-<name>-<time>`. Raises UsageError for `--resume never` on what is not
    empty, for a directory that is no run, and for an identity option that differs from the run's; InputError naming the
    holder when another process has it.
    """
    with files.translate_os_errors("opening the run directory", fix=OTHER_OUT, fix_when_full=AGAIN):
        if options.out is None:
            path = _make_new(root, command, name)
        else:
            path = options.out
            _refuse_unusable(path, options.resume)
            files.make_directories(path)
        run = RunDirectory(path, command, lock=RunLock(path))
        try:
            if (path / CONFIG).exists():
                if _refuse_changes(path / CONFIG, options, command):
                    run.new_config = config_text(options, command)
            else:
                files.write_atomically(path / CONFIG, config_text(options, command))
        except BaseException:
            run.close()
            raise
    return run


def check_run(options: TrainingOptions, *, command: str) -> None:
    """Raise what `open_run` raises for a directory, its holder or an option; nothing is made, and no lock kept."""
    if options.out is None:
        return
    with files.translate_os_errors("looking into the run directory", fix=OTHER_OUT, fix_when_full=AGAIN):
        _refuse_unusable(options.out, options.resume)
        if (options.out / CONFIG).exists():
            _refuse_changes(options.out / CONFIG, options, command)
        if (options.out / LOCK).exists():
            RunLock(options.out).release()


def _make_new(root: Path, command: str, name: str) -> Path:
    files.make_directories(root)
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
    stem = f"{command}-{safe}-{datetime.now():%Y%m%d-%H%M%S}"
    taken = 0
    while True:
        path = root / (f"{stem}-{taken}" if taken else stem)
        try:
            files.make_directory(path)
        except FileExistsError:
            taken += 1
            continue
        files.sync_directory(root)
        return path


def _refuse_unusable(path: Path, resume: str) -> None:
    if not _is_utf8(path):
        raise UsageError("the name is not UTF-8", where=f"--out {path}", fix="name another directory")
    if (path.exists() or path.is_symlink()) and not path.is_dir():
        problem = "is a file" if path.exists() else "is a link to nothing"
        raise UsageError(f"--out {problem}", where=str(path), fix="name a directory")
    present = {one.name for one in path.iterdir()} - {LOCK, CONFIG + ".tmp"} if path.exists() else set()
    _refuse_in_the_way(path)
    if not present:
        return
    if resume == "never":
        raise UsageError("--out is not empty", where=str(path), fix="name another, or leave --resume never out")
    if not present & {CONFIG, CHECKPOINTS}:
        raise UsageError("--out holds something that is no run", where=str(path), fix="name another directory")


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_in_the_way(run: Path) -> None:
    """Raise InputError for a name of a run's that is something else; links may lead to folders of the user's alone."""
    for name in (*FILES, *FOLDERS):
        path = run / name
        if not path.exists() and not path.is_symlink():
            continue
        is_what_it_is = path.is_dir() if name in FOLDERS else path.is_file()
        if not is_what_it_is or (path.is_symlink() and name not in LINKS):
            kind = "folder" if name in FOLDERS else "file"
            raise InputError(f"{name} is no {kind} of a run", where=str(path), fix=f"move it away; then {AGAIN}")


def _refuse_changes(config: Path, options: TrainingOptions, command: str) -> bool:
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
    if changed == [raising.STEPS] and raising.is_raised(options, stored[raising.STEPS]):
        reason = raising.refusal(options, stored[raising.STEPS])
        if reason is None:
            return True
        told.append(reason)
    if changed == ["epochs"]:
        told.append("a fine-tuning run is planned for all its epochs")
    fix = "give the run's own values, or start a new run with another --out"
    raise UsageError(f"the run was made with other options: {'; '.join(told)}", where=str(config), fix=fix)


def _shown(value: object) -> str:
    return "unset" if value is None else str(list(value) if isinstance(value, tuple) else value)


def config_text(options: TrainingOptions, command: str) -> str:
    """Return the recipe that repeats a run."""
    values = {name: _plain(value) for name, value in _config_values(options).items()}
    return f"{CONFIG_HEADER.format(command=command)}\n{yaml.safe_dump(values, sort_keys=False)}"


def identity_values(options: TrainingOptions) -> dict[str, str]:
    """Return the identity options as a checkpoint keeps them, so that an edited config.yaml is found out.

    Files may move. What data and tokenizers hold the caller hashes; of a model and a task the file that describes it is
    hashed here.
    """
    values = _config_values(options)
    return {
        name: _kept(values.get(name, one.default), name)
        for name, one in fields_of(type(options)).items()
        if not one.metadata["resumable"] and name != "data"
    }


def _kept(value: Any, name: str) -> str:
    if name not in PATHS or not os.path.isabs(str(value)):
        return _shown(value)
    if name not in DESCRIBED:
        return "a path"
    path = Path(value)
    folders = (described_in(path), path / START, path, path / MODEL)
    files_of_it = (path, *(folder / "config.json" for folder in folders))
    found = next((one for one in files_of_it if one.is_file()), None)
    return f"of sha256 {hashlib.sha256(found.read_bytes()).hexdigest()}" if found else "a path"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _config_values(options: TrainingOptions) -> dict[str, Any]:
    """Return the options that a recipe holds, unset ones left out, files and directories absolute."""
    values = {name: getattr(options, name) for name in fields_of(type(options)) if name not in FLAGS_ONLY | {"out"}}
    for name in values.keys() & set(PATHS):
        values[name] = _absolute(values[name], name)
    return {name: value for name, value in values.items() if value is not None}


def _absolute(value: Any, name: str) -> Any:
    """Return paths made absolute; names of the hub, of presets and of tasks stay, and so do numbers."""
    if isinstance(value, tuple):
        return tuple(_absolute(one, name) for one in value)
    if isinstance(value, Path):
        return Path(os.path.abspath(value))
    return os.path.abspath(os.path.expanduser(value)) if isinstance(value, str) and _is_path(value, name) else value


def _is_path(value: str, name: str) -> bool:
    if value.startswith("hf:"):
        return False
    if name in ("task", "accelerate_config"):  # a folder may be called what a task or a shipped file is
        return value.endswith((".yaml", ".yml", ".json"))
    return name == "data" or os.path.exists(value)
