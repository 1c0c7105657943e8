"""What a finished run returned, and which of several finished last."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from gptkit.run_files import MODEL, RESULT

NEEDED = {"command", "run_dir", "model_dir", "seed", "finished_at"}


def read_result(path: Path) -> dict[str, Any] | None:
    """Return a finished run's result, None for one that is not finished, or has lost its model or what it says.

    Its paths are those of today: a run may be moved.
    """
    try:
        result = json.loads((path / RESULT).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(result, dict) or not result.keys() >= NEEDED or not (path / MODEL).is_dir():
        return None
    return result | {"run_dir": str(path), "model_dir": str(path / MODEL)}


def newest_finished(root: Path, suits: Callable[[dict[str, Any]], bool]) -> Path | None:
    """Return the run directly under `root` whose result suits that finished last, by its own `finished_at`."""
    finished: list[tuple[datetime, Path]] = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        result = read_result(path) or {}
        try:
            at = datetime.fromisoformat(str(result.get("finished_at")))
        except ValueError:
            continue
        if at.tzinfo is not None and suits(result):
            finished.append((at, path))
    return max(finished)[1] if finished else None
