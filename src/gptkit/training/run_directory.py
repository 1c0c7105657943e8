"""The directory of a run: open and lock it, rewind it to the newest checkpoint, write its rows and result.

config.yaml       a recipe that repeats the run: all options except those of output and resuming; paths are absolute
metrics.jsonl     see metrics.py; lines that are not rows are moved to metrics.jsonl.damaged
start/            config.json and tokenizer of all weights below, written before step 1
checkpoints/      see checkpoints.py
snapshots/        weights only; see checkpoints.py
diverged.json     the step at which a loss or gradient stopped being finite
result.json       what the command returned, written last
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from gptkit.errors import AGAIN, Diverged, InputError, UsageError
from gptkit.recipes import CONFIG
from gptkit.system import files
from gptkit.system.files import LOCK, RunLock
from gptkit.system.run_layout import (
    CHECKPOINTS,
    DAMAGED,
    DIVERGED,
    METRICS,
    MODEL,
    RESULT,
    SNAPSHOTS,
    START,
    all_steps,
    directory_name,
    is_committed,
)
from gptkit.system.writing import json_text
from gptkit.training.finished_runs import lost_result, read_result
from gptkit.training.metrics import append_row, read_rows, rewind_rows
from gptkit.training.options import TrainingOptions
from gptkit.training.run_identity import config_text, refuse_changes

if TYPE_CHECKING:
    from gptkit.training.batches import MicroBatch
    from gptkit.training.checkpoints import Found
    from gptkit.training.job import StepEvent

OTHER_OUT = "choose another --out"
FILES = (LOCK, CONFIG, METRICS, DIVERGED, RESULT)
FOLDERS = (CHECKPOINTS, f"{CHECKPOINTS}/{DAMAGED}", MODEL, SNAPSHOTS, START)
LINKS = (CHECKPOINTS, MODEL, SNAPSHOTS)  # which may be symbolic links to folders elsewhere


class RunDirectory:
    """An open run, locked until `close`; `result` is that of a finished run, else None.

    Only the main process holds the `lock`; without it nothing is written. `new_config` replaces config.yaml when the
    run continues with more steps than it was started with.
    """

    def __init__(self, path: Path, command: str, *, lock: RunLock | None) -> None:
        self.path = path
        self.command = command
        self.lock = lock
        self.new_config: str | None = None
        self.checkpoints, self.snapshots = path / CHECKPOINTS, path / SNAPSHOTS
        self.result = read_result(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.lock is not None:
            self.lock.release()

    def append(self, event: StepEvent) -> None:
        """Add a row to metrics.jsonl."""
        if self.lock is not None:
            append_row(self.path / METRICS, event.as_row())

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl; raises InputError if it is missing: somebody removed the run."""
        return read_rows(self.path / METRICS)

    def row_of(self, step: int, figures: Collection[str]) -> dict[str, Any]:
        """Return the row of a step that has these figures; raises InputError if it was lost, with the fix."""
        found = [row for row in self.rows() if row["step"] == step and row.keys() >= set(figures)]
        if found:
            return found[-1]
        fix = f"remove {self.checkpoints / directory_name(step)} and all later checkpoints; then {AGAIN}"
        raise InputError(f"no row for step {step} with {', '.join(figures)}", where=str(self.path / METRICS), fix=fix)

    def rewind(
        self, found: Found, *, identity: Mapping[str, str], keep: int, keep_step: int | None = None
    ) -> list[str]:
        """Go back to the checkpoint found: quarantine or drop what is newer; return log lines on what was damaged.

        A finished run becomes unfinished. More than `keep` checkpoints, left by a kill before they were pruned, are
        removed. Raises UsageError, before anything is changed, if the checkpoint has a different identity.
        """
        from gptkit.training import checkpoints  # imports torch
        from gptkit.training.checkpoint_files import rows_defect

        lines = found.lines()
        if found.path is None and self.result is not None:
            fix = "start a new run with another --out; --model can take this one"
            raise InputError("the finished run has no checkpoint to continue from", where=str(self.path), fix=fix)
        if lost := lost_result(self.path):
            lines.append(f"the run was finished, but {lost}: rebuilding its model and result")
        rows = read_rows(self.path / METRICS) if (self.path / METRICS).exists() else []
        if found.path is None and not found.rejected and rows:
            lines.append(f"no checkpoint in {self.checkpoints}: starting from step 0, not from {rows[-1]['step']}")
        if found.path is not None:
            checkpoints.refuse_other_identity(found.path, found.state.identity, identity)
            if problem := rows_defect(found.path):
                lines.append(f"{problem}: the loss curve cannot be trusted; weights and moments are intact")
        if any(reason == checkpoints.DECAYED for _, reason in found.rejected):
            lines.append(f"rows, checkpoints and snapshots after step {found.state.step} are dropped")
        with files.translate_os_errors("rewinding to the newest checkpoint", fix=AGAIN):
            self._reopen()
            checkpoints.quarantine(found)
            checkpoints.prune(self.checkpoints, keep, keep_step)
            checkpoints.drop_snapshots_after(self.snapshots, found.state.step)
        return lines + rewind_rows(self.path / METRICS, found.state.last_row)

    def _reopen(self) -> None:
        """Remove the result before anything else changes, so that a kill leaves an unfinished run."""
        if (self.path / RESULT).exists():
            files.remove_file(self.path / RESULT)
            files.sync_directory(self.path)
        if self.new_config is not None:
            files.write_atomically(self.path / CONFIG, self.new_config)

    def write_start(self, write: Callable[[Path], None]) -> None:
        """Let `write` fill start/, unless it exists."""
        start = self.path / START
        if start.exists():
            return
        with files.translate_os_errors(f"writing {START}", fix=AGAIN):
            with files.new_directory(start) as folder:
                write(folder)
            files.sync_directory(self.path)

    def note_divergence(self, error: Diverged, micro_batches: Sequence[MicroBatch]) -> None:
        """Write diverged.json: the step, the rows of its micro-batches, and the newest checkpoint."""
        if self.lock is None:
            return
        newest = next(filter(is_committed, all_steps(self.checkpoints)), None)
        note = {
            "step": error.step,
            "message": error.message,
            "first_rows": [micro_batch.first_row for micro_batch in micro_batches],
            "supervised": [micro_batch.count for micro_batch in micro_batches],
            "newest_checkpoint": newest.name if newest else None,
        }
        with files.translate_os_errors(f"writing {DIVERGED}", fix=AGAIN):
            files.write_atomically(self.path / DIVERGED, json_text(note, indent=1) + "\n")

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write result.json, with the command, the process's `elapsed_seconds` and `finished_at`, and return it."""
        elapsed = time.time() - psutil.Process().create_time()
        finished = datetime.now(UTC).isoformat(timespec="microseconds")
        return self.amend({"command": self.command, **result, "elapsed_seconds": elapsed, "finished_at": finished})

    def amend(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write result.json as it is given, and return it."""
        self.result = result
        with files.translate_os_errors(f"writing {RESULT}", fix=AGAIN):
            files.sync_all(self.path)  # everything must be durable before the result
            files.write_atomically(self.path / RESULT, json_text(result, indent=1) + "\n")
        return result


def open_run(options: TrainingOptions, *, command: str, name: str, root: Path = Path("runs")) -> RunDirectory:
    """Open the run that these options begin, resume or have finished; only the main process may call this.

    Without `out` it is a new directory `root/<command>-<name>-<time>`. Raises UsageError for `--resume never` on a
    directory that is not empty, for a directory that is not a run's, and for an option that may not change; InputError,
    naming the holder, when another process has the run open.
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
                if refuse_changes(path / CONFIG, options, command):
                    run.new_config = config_text(options, command)
            else:
                files.write_atomically(path / CONFIG, config_text(options, command))
        except BaseException:
            run.close()
            raise
    return run


def check_run(options: TrainingOptions, *, command: str) -> None:
    """Raise what `open_run` raises for these options, without creating anything or keeping a lock."""
    if options.out is None:
        return
    with files.translate_os_errors("checking the run directory", fix=OTHER_OUT, fix_when_full=AGAIN):
        _refuse_unusable(options.out, options.resume)
        if (options.out / CONFIG).exists():
            refuse_changes(options.out / CONFIG, options, command)
        if (options.out / LOCK).exists():
            RunLock(options.out).release()


def _make_new(root: Path, command: str, name: str) -> Path:
    files.make_directories(root)
    stem = f"{command}-{files.plain_name(name) or 'model'}-{datetime.now():%Y%m%d-%H%M%S}"
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
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError("the name is not UTF-8", where=f"--out {path}", fix="choose another directory") from None
    if (path.exists() or path.is_symlink()) and not path.is_dir():
        problem = "is a file" if path.exists() else "is a dangling link"
        raise UsageError(f"--out {problem}", where=str(path), fix="choose a directory")
    present = {entry.name for entry in path.iterdir()} - {LOCK, CONFIG + ".tmp"} if path.exists() else set()
    _refuse_in_the_way(path)
    if not present:
        return
    if resume == "never":
        raise UsageError("--out is not empty", where=str(path), fix="choose another, or leave out --resume never")
    if not present & {CONFIG, CHECKPOINTS}:
        raise UsageError("--out is not a run directory", where=str(path), fix="choose another directory")


def _refuse_in_the_way(run: Path) -> None:
    """Raise InputError if one of a run's files or folders is something else, or a link that is not in LINKS."""
    for name in (*FILES, *FOLDERS):
        path = run / name
        if not path.exists() and not path.is_symlink():
            continue
        is_right_kind = path.is_dir() if name in FOLDERS else path.is_file()
        if not is_right_kind or (path.is_symlink() and name not in LINKS):
            kind = "folder" if name in FOLDERS else "file"
            message = f"{name} must be a {kind} in a run directory"
            raise InputError(message, where=str(path), fix=f"move it away; then {AGAIN}")
