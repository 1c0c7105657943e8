"""A run's directory: its lock, its rows, its checkpoints, and the result that says it is finished; see run_opening.py.

config.yaml       a recipe: every option but where it goes and how it is shown; paths absolute
metrics.jsonl     a row a line, appended; rows after a checkpoint are dropped when the run goes on from there;
                  what is no row is moved to metrics.jsonl.damaged then
start/            config.json and tokenizer of all weights below, written before step 1
checkpoints/      see checkpoints.py
snapshots/        see snapshots.py
diverged.json     where a run left the finite numbers
result.json       what the command returned, written last
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from gptkit.errors import AGAIN, Diverged, InputError
from gptkit.recipes import CONFIG
from gptkit.system import files
from gptkit.system.json_files import json_object
from gptkit.system.run_layout import CHECKPOINTS, RESULT, SNAPSHOTS, START, all_steps, directory_name, is_committed
from gptkit.training.batches import MicroBatch
from gptkit.training.checkpoints import (
    DECAYED,
    Found,
    TrainingState,
    newest_committed,
    prune,
    read_state,
    refuse_other_identity,
    set_aside,
)
from gptkit.training.events import StepEvent
from gptkit.training.finished_runs import lost_result, read_result
from gptkit.training.manifests import METRICS, rows_defect
from gptkit.training.run_lock import RunLock
from gptkit.training.snapshots import drop_after

DIVERGED = "diverged.json"


class RunDirectory:
    """An open run, locked for this process until `close`; `result` is there when the run is finished.

    `new_config` is the text that config.yaml gets when the run continues with more steps than it was begun with.
    Sent to another process it comes without the lock, and appends nothing: the main process alone writes.
    """

    def __init__(self, path: Path, command: str, *, lock: RunLock | None) -> None:
        self.path = path
        self.command = command
        self.lock = lock
        self.new_config: str | None = None
        self.checkpoints, self.snapshots = path / CHECKPOINTS, path / SNAPSHOTS
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
            files.translate_os_errors(f"writing {METRICS}", fix=AGAIN),
            open(self.path / METRICS, "ab", buffering=0) as handle,
        ):
            files.write(handle, text.encode())
            files.sync(handle.fileno())

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl; a last line that was cut off is none.

        Raises InputError when it is not there: somebody removed the run.
        """
        with files.translate_os_errors(f"reading {METRICS}", fix=AGAIN):
            return [row for _, row in _lines_of(self.path / METRICS) if row is not None]

    def row_of(self, step: int, figures: Collection[str]) -> dict[str, Any]:
        """Return the row of a step with these figures; InputError where damage took it: training brings it back."""
        found = [row for row in self.rows() if row["step"] == step and row.keys() >= set(figures)]
        if found:
            return found[-1]
        fix = f"remove the checkpoints from {self.checkpoints / directory_name(step)} on; then {AGAIN}"
        raise InputError(f"no row of step {step} with {', '.join(figures)}", where=str(self.path / METRICS), fix=fix)

    def rows_so_far(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl, none where it is not there yet."""
        return self.rows() if (self.path / METRICS).exists() else []

    def drop_rows_after(self, step: int) -> None:
        """Make metrics.jsonl what it was when the row of `step` was its last one."""
        kept = [json.dumps(row) + "\n" for row in self.rows() if row["step"] <= step]
        with files.translate_os_errors(f"writing {METRICS}", fix=AGAIN):
            files.write_atomically(self.path / METRICS, "".join(kept))

    def set_rows_aside(self) -> list[str]:
        """Keep the lines of metrics.jsonl that are no rows beside it, before they are dropped; return a line on them.

        What a kill cut off is no damage, and is not kept.
        """
        damaged = self.path / f"{METRICS}.damaged"
        with files.translate_os_errors(f"writing {damaged.name}", fix=AGAIN):
            lines = [line for line, row in _lines_of(self.path / METRICS) if row is None]
            if lines:
                before = damaged.read_bytes() if damaged.is_file() else b""
                files.write_atomically(damaged, before + b"".join(line + b"\n" for line in lines))
        text = f"{self.path / METRICS}: {len(lines)} damaged line(s) dropped, kept in {damaged.name}"
        return [text] if lines else []

    def newest(self, continues: Callable[[TrainingState], bool] = lambda state: True) -> tuple[Found, TrainingState]:
        """Return the newest whole checkpoint that `continues` takes, or that of step 0; nothing is changed."""
        found = newest_committed(self.checkpoints, continues)
        return found, read_state(found.path) if found.path else TrainingState()

    def rewind(
        self,
        found: Found,
        state: TrainingState,
        *,
        identity: Mapping[str, str],
        keep: int,
        keep_step: int | None = None,
    ) -> list[str]:
        """Go back to what was found: set aside or drop what is newer; return a line for all that was damaged.

        A run that was finished is not any more. A kill between a commit and its pruning leaves more checkpoints than
        `keep`, which go now. Raises UsageError, before anything is changed, when the checkpoint is of another identity.
        """
        lines = found.lines()
        if found.path is None and self.result is not None:
            fix = "start a new run with another --out; --model can name this one"
            raise InputError("the finished run has no checkpoint to continue from", where=str(self.path), fix=fix)
        if lost := lost_result(self.path):
            lines.append(f"the run was finished, but {lost}: its model and result are made again")
        if found.path is None and not found.rejected and (rows := self.rows_so_far()):
            lines.append(f"no checkpoint is in {self.checkpoints}: starting from step 0, not from {rows[-1]['step']}")
        if found.path is not None:
            refuse_other_identity(found.path, identity)
            if problem := rows_defect(found.path):
                lines.append(f"{problem}: the curve is not to be trusted; weights and moments are whole")
        if any(reason == DECAYED for _, reason in found.rejected):
            lines.append(f"rows, checkpoints and snapshots after step {state.step} are dropped")
        with files.translate_os_errors("going back to the newest checkpoint", fix=AGAIN):
            self._reopen()
            set_aside(found)
            prune(self.checkpoints, keep, keep_step)
            drop_after(self.snapshots, state.step)
        if (self.path / METRICS).exists():
            lines += self.set_rows_aside()
            self.drop_rows_after(state.last_row)
        return lines

    def _reopen(self) -> None:
        """Take the result away before anything else changes, so that a kill leaves an unfinished run."""
        if (self.path / RESULT).exists():
            files.remove_file(self.path / RESULT)
            files.sync_directory(self.path)
        if self.new_config is not None:
            files.write_atomically(self.path / CONFIG, self.new_config)

    def write_start(self, write: Callable[[Path], None]) -> None:
        """Let `write` fill start/, unless it is there already."""
        start, unfinished = self.path / START, self.path / f"{START}.tmp"
        if start.exists():
            return
        with files.translate_os_errors(f"writing {START}", fix=AGAIN):
            if unfinished.exists():
                files.remove_directory(unfinished)
            files.make_directory(unfinished)
            write(unfinished)
            files.sync_all(unfinished)
            files.rename(unfinished, start)
            files.sync_directory(self.path)

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
        with files.translate_os_errors(f"writing {DIVERGED}", fix=AGAIN):
            files.write_atomically(self.path / DIVERGED, json.dumps(note, indent=1) + "\n")

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write result.json, with the command and `finished_at` added, and return it."""
        finished = datetime.now(UTC).isoformat(timespec="microseconds")
        self.result = {"command": self.command, **result, "finished_at": finished}
        with files.translate_os_errors(f"writing {RESULT}", fix=AGAIN):
            files.sync_all(self.path)  # what the result vouches for
            files.write_atomically(self.path / RESULT, json.dumps(self.result, indent=1, allow_nan=False) + "\n")
        return self.result


def _lines_of(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Yield each line with its row, None for what is no row of metrics; a last line that was cut off is left out."""
    *whole, last = path.read_bytes().split(b"\n")
    if last and not (last.startswith(b"{") and last.isascii()):
        whole.append(last)
    for line in whole:
        yield line, _row_of(line)


def _row_of(line: bytes) -> dict[str, Any] | None:
    try:
        row = json_object(line.decode(), METRICS, AGAIN)
    except (UnicodeDecodeError, InputError):
        return None
    needed = type(row.get("step")) is int and _is_number(row.get("tokens")) and _is_number(row.get("loss"))
    return row if needed and all(one is None or _is_number(one) for one in row.values()) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
