"""Write a run's metrics: rows of metrics.jsonl, one per line, and the trackers of `--report-to`.

When a run resumes from a checkpoint, the rows after it are dropped. The trackers (TensorBoard, Weights & Biases,
Trackio) are Accelerate's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptkit.errors import AGAIN, InputError, UsageError
from gptkit.system import files
from gptkit.system.reading import json_object, require_regular
from gptkit.system.run_layout import METRICS

NEWEST_BYTES = 1 << 16  # of metrics.jsonl that `newest_rows` reads

if TYPE_CHECKING:  # it needs torch, which takes seconds to import
    from gptkit.training.job import StepEvent


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row and sync it: no checkpoint may be durable before the rows up to it."""
    text = json.dumps(row, allow_nan=False) + "\n"
    with files.translate_os_errors(f"writing {METRICS}", fix=AGAIN), open(path, "ab", buffering=0) as handle:
        files.write(handle, text.encode())
        files.sync(handle.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows, without lines that are not rows; raises InputError if the file is missing."""
    with files.translate_os_errors(f"reading {METRICS}", fix=AGAIN):
        return [row for _, row in _lines_of(path) if row is not None]


def newest_rows(path: Path, name: str = "") -> Iterator[dict[str, Any]]:
    """Yield the rows in the last NEWEST_BYTES that have the figure `name`, the last one first."""
    with files.translate_os_errors(f"reading {METRICS}", fix=AGAIN):
        size = require_regular(path)
        with open(path, "rb") as handle:
            handle.seek(max(0, size - NEWEST_BYTES))
            lines = handle.read(NEWEST_BYTES).split(b"\n")
    yield from filter(None, (_row_of(line) for line in reversed(lines) if name.encode() in line))


def rewind_rows(path: Path, step: int) -> list[str]:
    """Drop the rows after `step` and all damaged lines; return a log line if there were any.

    Damaged lines are first copied to metrics.jsonl.damaged; a last line that a kill left incomplete is not.
    """
    if not path.exists():
        return []
    damaged = path.with_name(f"{METRICS}.damaged")
    with files.translate_os_errors(f"writing {METRICS}", fix=AGAIN):
        lines = list(_lines_of(path))
        bad = [line for line, row in lines if row is None]
        if bad:
            before = damaged.read_bytes() if damaged.is_file() else b""
            files.write_atomically(damaged, before + b"".join(line + b"\n" for line in bad))
        kept = [json.dumps(row) + "\n" for _, row in lines if row is not None and row["step"] <= step]
        files.write_atomically(path, "".join(kept))
    return [f"{path}: {len(bad)} damaged line(s) dropped, kept in {damaged.name}"] if bad else []


def _lines_of(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Yield each line with its row, or None if it is not a row; leave out an incomplete last line."""
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
    return row if needed and all(value is None or _is_number(value) for value in row.values()) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def check_tracker(name: str) -> None:
    """Raise UsageError, with the install command, if a tracker's package is missing."""
    if name != "none" and importlib.util.find_spec(name) is None:
        raise UsageError(f"{name} is not installed", where=f"--report-to {name}", fix=f"pip install 'gptkit[{name}]'")


class Tracker:
    """A tracker of one run, for the main process only; it never asks for a login."""

    def __init__(self, name: str, run: Path, config: Mapping[str, Any]) -> None:
        if name == "wandb" and "WANDB_API_KEY" not in os.environ:
            os.environ.setdefault("WANDB_MODE", "offline")
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        tracker_class = LOGGER_TYPE_TO_CLASS[name]
        where = {"logging_dir": str(run)} if tracker_class.requires_logging_directory else {}
        self._tracker = tracker_class("gptkit" if name != "tensorboard" else "tensorboard", **where)
        self._tracker.start()
        plain = (bool, int, float, str)
        storable = {key: value if isinstance(value, plain) else str(value) for key, value in config.items()}
        self._tracker.store_init_configuration(storable)

    def log(self, event: StepEvent) -> None:
        """Log a row."""
        row = {name: value for name, value in event.as_row().items() if value is not None and name != "step"}
        self._tracker.log(row, step=event.step)

    def close(self) -> None:
        self._tracker.finish()
