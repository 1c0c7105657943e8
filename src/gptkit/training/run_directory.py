"""A run's directory: its lock, the recipe that repeats it, its rows, and the result that says it is finished.

config.yaml       a recipe: every option but where it goes and how it is shown; paths absolute
metrics.jsonl     a row a line, appended; rows after a checkpoint are dropped when the run goes on from there
checkpoints/      see checkpoints.py
diverged.json     where a run left the finite numbers
result.json       what the command returned, written last
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from gptkit.errors import AGAIN, Diverged, UsageError
from gptkit.option_values import FLAGS_ONLY, read_recipe
from gptkit.options import TrainingOptions, fields_of
from gptkit.recipe_files import CONFIG
from gptkit.training import files
from gptkit.training.batches import MicroBatch
from gptkit.training.checkpoints import (
    METRICS,
    Found,
    TrainingState,
    all_steps,
    is_committed,
    newest_committed,
    prune,
    read_state,
    refuse_other_identity,
    rows_defect,
    set_aside,
)
from gptkit.training.events import StepEvent
from gptkit.training.results import RESULT, read_result
from gptkit.training.run_lock import LOCK, RunLock

DIVERGED = "diverged.json"
DESCRIBED = ("model", "task")  # by a file
PATHS = ("data", "validation", "model", "tokenizer", "task", "accelerate_config")
OTHER_OUT = "choose another --out"

Options = TypeVar("Options", bound=TrainingOptions)


class RunDirectory:
    """An open run, locked for this process until `close`; `result` is there when the run is finished.

    Sent to another process it comes without the lock, and appends nothing: the main process alone writes.
    """

    def __init__(self, path: Path, command: str, *, lock: RunLock | None) -> None:
        self.path = path
        self.command = command
        self.lock = lock
        self.checkpoints = path / "checkpoints"
        self.result = read_result(path)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"lock": None}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.lock is not None:
            self.lock.release()

    def append(self, event: StepEvent) -> None:
        """Add a row to metrics.jsonl, for all to see at once; no checkpoint is durable before the rows up to it."""
        if self.lock is None:
            return
        text = json.dumps(event.as_row(), allow_nan=False) + "\n"
        with (
            files.failures_told(f"writing {METRICS}", fix=AGAIN),
            open(self.path / METRICS, "ab", buffering=0) as handle,
        ):
            files.write(handle, text.encode())
            files.sync(handle.fileno())

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl; a last line that was cut off is none.

        Raises InputError when it is not there: somebody removed the run.
        """
        with files.failures_told(f"reading {METRICS}", fix=AGAIN):
            return list(_rows_in(self.path / METRICS))

    def drop_rows_after(self, step: int) -> None:
        """Make metrics.jsonl what it was when the row of `step` was its last one."""
        kept = [json.dumps(row) + "\n" for row in self.rows() if row["step"] <= step]
        with files.failures_told(f"writing {METRICS}", fix=AGAIN):
            files.write_atomically(self.path / METRICS, "".join(kept))

    def newest(self) -> tuple[Found, TrainingState]:
        """Return the newest whole checkpoint and its state, or those of step 0; nothing is changed."""
        found = newest_committed(self.checkpoints)
        return found, read_state(found.path) if found.path else TrainingState()

    def rewind(self, found: Found, last_row: int, *, identity: Mapping[str, str], keep: int) -> list[str]:
        """Go back to what was found: set aside what is newer, drop later rows; return a line for all that was damaged.

        A kill between a commit and its pruning leaves more checkpoints than `keep`, which go now. Raises UsageError,
        before anything is changed, when the checkpoint is of another identity.
        """
        lines = found.lines()
        if found.path is not None:
            refuse_other_identity(found.path, identity)
            if problem := rows_defect(found.path):
                lines.append(f"{problem}: the curve is not to be trusted; weights and moments are whole")
        with files.failures_told("going back to the newest checkpoint", fix=AGAIN):
            set_aside(found)
            prune(self.checkpoints, keep)
        if (self.path / METRICS).exists():
            self.drop_rows_after(last_row)
        return lines

    def note_divergence(self, error: Diverged, micro_batches: Sequence[MicroBatch]) -> None:
        """Write diverged.json: the step, the rows it was on, as their order numbers them, and the newest checkpoint."""
        if self.lock is None:
            return
        newest = next(filter(is_committed, all_steps(self.checkpoints)), None)
        note = {
            "step": error.step,
            "message": error.message,
            "first_rows": [one.first_row for one in micro_batches],
            "supervised": [one.count for one in micro_batches],
            "newest_checkpoint": newest.name if newest else None,
        }
        with files.failures_told(f"writing {DIVERGED}", fix=AGAIN):
            files.write_atomically(self.path / DIVERGED, json.dumps(note, indent=1) + "\n")

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write result.json, with the command and `finished_at` added, and return it."""
        finished = datetime.now(UTC).isoformat(timespec="microseconds")
        self.result = {"command": self.command, **result, "finished_at": finished}
        with files.failures_told(f"writing {RESULT}", fix=AGAIN):
            files.sync_all(self.path)  # what the result vouches for
            files.write_atomically(self.path / RESULT, json.dumps(self.result, indent=1, allow_nan=False) + "\n")
        return self.result


def _rows_in(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row


def open_run(options: TrainingOptions, *, command: str, name: str, root: Path = Path("runs")) -> RunDirectory:
    """Return the run that these options begin, go on with, or have finished; the main process alone calls this.

    Without `out` it is a new `root/<command>-<name>-<time>`. Raises UsageError for `--resume never` on what is not
    empty, for a directory that is no run, and for an identity option that differs from the run's; InputError naming the
    holder when another process has it.
    """
    with files.failures_told("opening the run directory", fix=OTHER_OUT, fix_when_full=AGAIN):
        if options.out is None:
            path = _make_new(root, command, name)
        else:
            path = options.out
            _refuse_unusable(path, options.resume)
            files.make_directories(path)
        run = RunDirectory(path, command, lock=RunLock(path))
        try:
            if (path / CONFIG).exists():
                _refuse_changes(path / CONFIG, options)
            else:
                files.write_atomically(path / CONFIG, config_text(options, command))
        except BaseException:
            run.close()
            raise
    return run


def check_run(options: TrainingOptions) -> None:
    """Raise what `open_run` raises for a directory, its holder or an option; nothing is made, and no lock kept."""
    if options.out is None:
        return
    with files.failures_told("looking into the run directory", fix=OTHER_OUT, fix_when_full=AGAIN):
        _refuse_unusable(options.out, options.resume)
        if (options.out / CONFIG).exists():
            _refuse_changes(options.out / CONFIG, options)
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
    if path.exists() and not path.is_dir():
        raise UsageError("--out is a file", where=str(path), fix="name a directory")
    present = {one.name for one in path.iterdir()} - {LOCK, CONFIG + ".tmp"} if path.exists() else set()
    if not present:
        return
    if resume == "never":
        raise UsageError("--out is not empty", where=str(path), fix="name another, or leave --resume never out")
    if CONFIG not in present:
        raise UsageError("--out holds something that is no run", where=str(path), fix="name another directory")


def _refuse_changes(config: Path, options: TrainingOptions) -> None:
    """Raise UsageError naming each identity option that differs from the run's, with its old and its new value."""
    stored, given = read_recipe(config, type(options)), _config_values(options)
    changes = [
        f"{name} was {_shown(stored.get(name, one.default))}, is {_shown(given.get(name, one.default))}"
        for name, one in fields_of(type(options)).items()
        if not one.metadata["conduct"] and stored.get(name, one.default) != given.get(name, one.default)
    ]
    if changes:
        fix = "give the run's own values, or start a new run with another --out"
        raise UsageError(f"the run was made with other options: {'; '.join(changes)}", where=str(config), fix=fix)


def _shown(value: object) -> str:
    return "unset" if value is None else str(list(value) if isinstance(value, tuple) else value)


def config_text(options: TrainingOptions, command: str) -> str:
    """Return the recipe that repeats a run."""
    values = {name: _plain(value) for name, value in _config_values(options).items()}
    return f"# gptkit {command} --recipe {CONFIG} repeats this run\n{yaml.safe_dump(values, sort_keys=False)}"


def identity_values(options: TrainingOptions) -> dict[str, str]:
    """Return the identity options as a checkpoint keeps them, so that an edited config.yaml is found out.

    Files may move. What data and tokenizers hold the caller hashes; of a model and a task the file that describes it is
    hashed here.
    """
    values = _config_values(options)
    return {
        name: _kept(values.get(name, one.default), name)
        for name, one in fields_of(type(options)).items()
        if not one.metadata["conduct"] and name != "data"
    }


def _kept(value: Any, name: str) -> str:
    if name not in PATHS or not os.path.isabs(str(value)):
        return _shown(value)
    if name not in DESCRIBED:
        return "a path"
    path = Path(value)
    files_of_it = (path, path / "config.json", path / "model" / "config.json")
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
