"""What a finished run returned, and which of several finished last."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gptkit.errors import InputError
from gptkit.model_files.weights import model_files
from gptkit.run_files import MODEL, RESULT
from gptkit.strict_json import read_json_object

NEEDED = {"command", "run_dir", "model_dir", "seed", "finished_at"}
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # as they are saved
NEEDED_OF = {"finetune": {"task", "model", "metrics", "per_seed"}}


def read_result(path: Path) -> dict[str, Any] | None:
    """Return a finished run's result, None for one that is not finished, or has lost its model or what it says.

    Its paths are those of today: a run may be moved.
    """
    try:
        return _whole_result(path)
    except InputError:
        return None


def lost_result(path: Path) -> str | None:
    """Return what a run that was finished has lost since, None for any other."""
    try:
        if os.path.exists(path / RESULT):  # False for a directory that others keep to themselves
            _whole_result(path)
    except InputError as error:
        return f"{error.message} ({error.where})"
    return None


def _whole_result(path: Path) -> dict[str, Any]:
    result = read_json_object(path / RESULT)
    missing = (NEEDED | NEEDED_OF.get(str(result.get("command")), set())) - result.keys()
    if missing:
        raise InputError(f"{min(missing)} is missing", where=str(path / RESULT))
    if not any(all((path / MODEL / name).is_file() for name in names) for names in TOKENIZERS):
        raise InputError("no tokenizer in it", where=str(path / MODEL))
    for file in model_files(path / MODEL)[1:]:
        try:
            with safe_open(file, framework="numpy"):
                pass  # its header says how long the file must be
        except (SafetensorError, OSError) as error:
            raise InputError(f"damaged: {error}", where=str(file)) from None
    return result | {"run_dir": str(path), "model_dir": str(path / MODEL)}


def newest_finished(root: Path, suits: Callable[[dict[str, Any]], bool], warn: Callable[[str], object]) -> Path | None:
    """Return the run directly under `root` whose result suits that finished last, by its own `finished_at`.

    `warn` is told of each run that was finished and is damaged now.
    """
    finished: list[tuple[datetime, Path]] = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        result = read_result(path) or {}
        if not result and (reason := lost_result(path)):
            warn(f"{path} is not used: {reason}")
        try:
            at = datetime.fromisoformat(str(result.get("finished_at")))
        except ValueError:
            continue
        if at.tzinfo is not None and suits(result):
            finished.append((at, path))
    return max(finished)[1] if finished else None
