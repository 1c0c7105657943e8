"""Directories that are whole or not there: filled, synced, and committed by MANIFEST.json, which is written last."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch

import gptkit
from gptkit.errors import GptkitError, InputError
from gptkit.system import files
from gptkit.system.run_layout import MANIFEST, METRICS, SCHEMA, FileRecord, is_committed, record_of, with_digest

DISCARDED = "removed-"  # prefixes what is being removed


def begin(path: Path) -> None:
    """Make an empty directory where nothing is committed yet."""
    if is_committed(path):
        raise GptkitError("a committed checkpoint is never written again", where=str(path))
    if not path.parent.exists():
        files.make_directory(path.parent)
        files.sync_directory(path.parent.parent)
    if path.exists():
        files.remove_directory(path)
    files.make_directory(path)


def commit(path: Path, step: int, records: list[FileRecord], rows: FileRecord | None = None) -> None:
    """Commit a directory whose files are written and synced; `rows` are those of the run by then."""
    files.sync_directory(path)
    manifest = render_manifest(step, records, rows)
    files.write_atomically(path / MANIFEST, manifest)
    files.sync_directory(path.parent)
    if (path / MANIFEST).read_text() != manifest:
        raise InputError(f"{MANIFEST} reads back differently", where=str(path), fix="check the disk")


def remove_leftovers(path: Path) -> None:
    """Free the space of a save that failed, if the disk still lets us."""
    if is_committed(path) or not path.exists():
        return
    try:
        files.remove_directory(path)
    except OSError:
        return


def discard(path: Path) -> None:
    """Remove a committed directory; a removal cut off leaves nothing that looks like one."""
    removed = path.with_name(DISCARDED + path.name)
    files.rename(path, removed)
    files.remove_directory(removed)


def remove_discarded(directory: Path) -> None:
    """Finish removals that were cut off."""
    for leftover in directory.glob(f"{DISCARDED}*"):
        files.remove_directory(leftover)


def render_manifest(step: int, records: list[FileRecord], rows: FileRecord | None = None) -> str:
    """Return the manifest's only valid text for these files, and for the run's rows by then."""
    return with_digest(
        {
            "schema": SCHEMA,
            "step": step,
            "versions": {"gptkit": gptkit.__version__, "torch": str(torch.__version__)},
            "files": [dataclasses.asdict(record) for record in records],
            "rows": None if rows is None else dataclasses.asdict(rows),
        }
    )


def rows_beside(path: Path) -> Path:
    """Return the metrics.jsonl of the run that a checkpoint belongs to."""
    return path.parent.parent / METRICS


def rows_defect(path: Path) -> str | None:
    """Return how metrics.jsonl differs from what it was when a verified checkpoint was saved, or None."""
    record = json.loads((path / MANIFEST).read_text())["rows"]
    if record is None:
        return None
    rows = rows_beside(path)
    if not rows.is_file():
        return f"{rows} is missing"
    if record_of(rows, size=record["size"]) == FileRecord(**record):
        return None
    return f"{rows} is not what it was at {path.name}"
