"""Where a run found its task's files, for an evaluation of its model that names no data."""

from __future__ import annotations

from pathlib import Path

from gptkit.errors import UsageError
from gptkit.finetune.options import FinetuneOptions
from gptkit.recipes import CONFIG, read_recipe
from gptkit.system.run_layout import MODEL


def recorded_data(model: Path) -> str | None:
    """Return the folder of data that the config.yaml of a model's run names, None where there is no such folder."""
    model = model.absolute()
    config = model.parent / CONFIG
    if model.name != MODEL or not config.is_file():
        return None
    try:
        values = read_recipe(config, FinetuneOptions)
    except UsageError:
        return None  # another command's run, or a damaged one
    task = Path(values.get("task", ""))
    folder = values.get("data") or (task.parent if task.is_absolute() else None)
    return str(folder) if folder is not None and Path(folder).is_dir() else None
