"""The layout of a run directory, and which of its weights are intact; read without torch, for `generate`.

start/                     config.json and the tokenizer, written before step 1
checkpoints/step-000100/   weights, optimizer moments and run state, written by training/checkpoints.py
snapshots/step-000100/     weights only, evenly spaced, never pruned, written by training/checkpoints.py
model/, result.json        the model of a finished run, and the command's result, written last

MANIFEST.json is written last in a checkpoint or snapshot: it has the size and sha256 of every other file and a sha256
of itself. safetensors notices one bit flip in 300, the manifest every one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptkit.errors import nearest

RUNS = Path("runs")
START, CHECKPOINTS, SNAPSHOTS, MODEL, RESULT = "start", "checkpoints", "snapshots", "model", "result.json"
METRICS, DIVERGED = "metrics.jsonl", "diverged.json"
LM, LM_TEXTS = "lm", "lm-texts.jsonl"  # of a fine-tuning run: the run that tuned its language model, and on what
PEERS = "peers"  # of a pretrain run: the models that a study pre-trained as this one was
DAMAGED = "damaged"  # folder of checkpoints that could not be trusted
MANIFEST, SCHEMA = "MANIFEST.json", "gptkit.checkpoint/1"
OF_MODELS = ("config.json", MODEL, START, CHECKPOINTS)  # one of them is in each model, run, checkpoint or snapshot
WEIGHTS = "model"  # prefix of the names of weight files
CHUNK = 1 << 20
LOSSES = ("val_loss", "masked_loss")  # of a validation; the second only of masked language models
OVERFITTED = 1.01  # times the lowest validation loss: smaller rises are noise


@dataclass(frozen=True)
class FileRecord:
    """Identifies the content of a file."""

    name: str
    size: int
    sha256: str


def record_of(path: Path, *, size: int | None = None) -> FileRecord:
    """Return the record of a file, or of its first `size` bytes."""
    digest, left = hashlib.sha256(), path.stat().st_size if size is None else size
    whole = left
    with open(path, "rb") as handle:
        while left and (chunk := handle.read(min(left, CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
    return FileRecord(path.name, whole - left, digest.hexdigest())


def directory_name(step: int) -> str:
    return f"step-{step:06d}"


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def all_steps(directory: Path) -> list[Path]:
    """Return the step-N directories in checkpoints/ or snapshots/, newest first."""
    if not directory.is_dir():
        return []
    steps = [path for path in directory.iterdir() if re.fullmatch(r"step-\d{6,}", path.name) and path.is_dir()]
    return sorted(steps, key=step_of, reverse=True)


def is_committed(path: Path) -> bool:
    return (path / MANIFEST).exists()


def with_digest(body: dict[str, Any]) -> str:
    """Return the text of a manifest with this content; any other text is damaged."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps(body | {"sha256": digest}, indent=1, sort_keys=True) + "\n"


def manifest_of(path: Path) -> dict[str, Any] | None:
    """Return the content of a manifest of any schema, None if it is damaged; OSError if there is none."""
    if (path / MANIFEST).exists() and not (path / MANIFEST).is_file():
        return None  # opening a FIFO would hang
    try:
        text = (path / MANIFEST).read_bytes().decode()
        body: dict[str, Any] = json.loads(text)
        body.pop("sha256")
        name = os.path.basename(os.path.abspath(path))
        is_whole: bool = with_digest(body) == text and name == directory_name(body["step"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return body if is_whole else None


def recorded_names(path: Path) -> list[str]:
    """Return the names of the files of a verified checkpoint or snapshot."""
    return [record["name"] for record in json.loads((path / MANIFEST).read_text())["files"]]


def written_by(path: Path) -> str:
    """Return the version that wrote a checkpoint, according to its manifest."""
    versions = (manifest_of(path) or {}).get("versions", {})
    return f"gptkit {versions.get('gptkit', 'of another version')}"


def foreign_schema(path: Path) -> str | None:
    """Return the schema of an intact manifest if this version cannot read it, else None."""
    schema: str = (manifest_of(path) or {}).get("schema", SCHEMA)
    return None if schema == SCHEMA else schema


def defect(path: Path, *, files: str = "") -> str | None:
    """Return why a committed directory cannot be trusted, or None if every byte is as it was written.

    With `files`, check only the files whose names start with it.
    """
    try:
        body = manifest_of(path)
        if body is None:
            return f"{MANIFEST} is damaged"
        if body["schema"] != SCHEMA:
            return f"{written_by(path)} wrote it as {body['schema']}, but this version reads {SCHEMA}"
        for record in (FileRecord(**record) for record in body["files"] if record["name"].startswith(files)):
            file = path / Path(record.name).name
            if not file.is_file():
                return f"{record.name} is missing"
            if file.stat().st_size != record.size:
                return f"{record.name} has {file.stat().st_size} bytes instead of {record.size}"
            if record_of(file) != record:
                return f"{record.name} differs from its sha256"
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    return None


def described_in(directory: Path) -> Path:
    """Return the directory of the config.json and tokenizer that belong to a directory of weights.

    Usually they are the same. For a checkpoint or snapshot it is start/ of its run, or model/ of a finished run of an
    earlier version, which wrote no start/.
    """
    folder = Path(os.path.abspath(directory))
    run = folder.parent.parent
    if folder.parent.name not in (CHECKPOINTS, SNAPSHOTS) or (directory / "config.json").exists():
        return directory
    if (run / START).is_dir():
        return run / START
    return run / MODEL if (run / MODEL / "config.json").exists() else directory


def run_of(directory: Path) -> Path | None:
    """Return the run that a directory of weights lies in: model/, a checkpoint or a snapshot; None if it is in none."""
    folder = Path(os.path.abspath(directory))
    if folder.name == MODEL:
        return folder.parent
    return folder.parent.parent if folder.parent.name in (CHECKPOINTS, SNAPSHOTS) else None


def did_you_mean(path: Path) -> str | None:
    """Return the fix for a model or run that does not exist: the nearest name beside it or in ./runs."""
    known: dict[str, Path] = {}
    for folder in (RUNS, path.parent):
        with contextlib.suppress(OSError, ValueError):
            for child in folder.iterdir():
                if any((child / name).exists() for name in OF_MODELS):
                    known[child.name] = child
    near = nearest(path.name, known)
    return None if near is None else f"did you mean {str(known[near])!r}?"


def is_unfinished(path: Path) -> bool:
    """Return whether this is the directory of an unfinished run that trains one model."""
    is_run = (path / START).is_dir() or ((path / CHECKPOINTS).is_dir() and not (path / MODEL).is_dir())
    return is_run and not (path / "config.json").exists() and not (path / RESULT).exists()


def is_undescribed(path: Path) -> bool:
    """Return whether this is a checkpoint or snapshot without any config.json."""
    return is_committed(path) and not (described_in(path) / "config.json").exists()


def _kept(run: Path) -> list[Path]:
    return [path for folder in (SNAPSHOTS, CHECKPOINTS) for path in all_steps(run / folder) if is_committed(path)]


def weights_nearest(step: int, run: Path, *, end: int) -> Path | None:
    """Return the kept weights nearest to a step, of equals a snapshot; None if those of the `end` are as near."""
    near = [path for path in _kept(run) if abs(step_of(path) - step) < end - step]
    return min(near, key=lambda path: abs(step_of(path) - step), default=None)


def validation_loss(figures: Mapping[str, Any]) -> Any:
    """Return the validation loss in a result or a row of metrics.jsonl, of whichever objective; None without one."""
    return next((figures[name] for name in LOSSES if figures.get(name) is not None), None)


def best_weights(result: Mapping[str, Any]) -> Path | None:
    """Return the weights kept nearest to the best step of an overfitted pretrain run, None if the last are as near."""
    best = result.get("best")  # earlier versions and plans have none
    if best is None or validation_loss(result) <= OVERFITTED * validation_loss(best):
        return None
    return weights_nearest(best["step"], Path(result["run_dir"]), end=result["steps"])


def newest_weights(run: Path) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint or snapshot with intact weights, and a line about each newer one that is damaged.

    If both are of the same step, return the snapshot, which is never pruned.
    """
    lines: list[str] = []
    for path in sorted(_kept(run), key=step_of, reverse=True):
        reason = defect(path, files=WEIGHTS)
        if reason is None:
            return path, lines
        lines.append(f"{path} is not used: {reason}")
    return None, lines
