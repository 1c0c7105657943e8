"""Directories that are whole or not there: filled, synced, and committed by MANIFEST.json, which is written last."""

from __future__ import annotations

from pathlib import Path

from gptkit.errors import GptkitError, InputError
from gptkit.run_files import MANIFEST, FileRecord, is_committed
from gptkit.training import files
from gptkit.training.manifests import render_manifest

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
