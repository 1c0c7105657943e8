"""Writing the manifest of a checkpoint: the size and sha256 of its files, of the rows beside it, and of itself.

run_files.py reads it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch

import gptkit
from gptkit.run_files import MANIFEST, SCHEMA, FileRecord, record_of, with_digest

METRICS = "metrics.jsonl"


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
