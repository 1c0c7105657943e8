"""The manifest of a checkpoint: the size and sha256 of its files, of the rows beside it, and of itself.

safetensors notices one bit flip in 300; this notices all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

import gptkit
from gptkit.training import files
from gptkit.training.files import FileRecord

MANIFEST, METRICS = "MANIFEST.json", "metrics.jsonl"
SCHEMA = "gptkit.checkpoint/1"


def directory_name(step: int) -> str:
    return f"step-{step:06d}"


def render_manifest(step: int, records: list[FileRecord], rows: FileRecord | None = None) -> str:
    """Return the manifest's only valid text for these files, and for the run's rows by then."""
    body = {
        "schema": SCHEMA,
        "step": step,
        "versions": {"gptkit": gptkit.__version__, "torch": str(torch.__version__)},
        "files": [dataclasses.asdict(record) for record in records],
        "rows": None if rows is None else dataclasses.asdict(rows),
    }
    return _with_digest(body)


def _with_digest(body: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps(body | {"sha256": digest}, indent=1, sort_keys=True) + "\n"


def rows_beside(path: Path) -> Path:
    """Return the metrics.jsonl of the run that a checkpoint belongs to."""
    return path.parent.parent / METRICS


def is_committed(path: Path) -> bool:
    return (path / MANIFEST).exists()


def defect(path: Path) -> str | None:
    """Return why a checkpoint with a manifest cannot be trusted, or None when every byte is as it was written."""
    if not (path / MANIFEST).is_file():  # opening a FIFO would wait for ever
        return f"{MANIFEST} is no regular file"
    try:
        text = (path / MANIFEST).read_bytes().decode()
        body = json.loads(text)
        body.pop("sha256")
        if body["schema"] != SCHEMA or _with_digest(body) != text or path.name != directory_name(body["step"]):
            return f"{MANIFEST} is damaged"
        for record in body["files"]:
            if problem := _file_defect(path, FileRecord(**record)):
                return problem
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} is damaged"
    return None


def _file_defect(path: Path, record: FileRecord) -> str | None:
    file = path / Path(record.name).name
    if not file.is_file():
        return f"{record.name} is missing"
    if file.stat().st_size != record.size:
        return f"{record.name} has {file.stat().st_size} bytes instead of {record.size}"
    if files.record_of(file) != record:
        return f"{record.name} differs from its sha256"
    return None


def recorded_names(path: Path) -> list[str]:
    """Return the names of the files that a verified checkpoint is made of."""
    return [record["name"] for record in json.loads((path / MANIFEST).read_text())["files"]]


def rows_defect(path: Path) -> str | None:
    """Return how metrics.jsonl differs from what it was when a verified checkpoint was saved, or None."""
    record = json.loads((path / MANIFEST).read_text())["rows"]
    if record is None:
        return None
    rows = rows_beside(path)
    if not rows.is_file():
        return f"{rows} is missing"
    if files.record_of(rows, size=record["size"]) == FileRecord(**record):
        return None
    return f"{rows} is not what it was at {path.name}"
