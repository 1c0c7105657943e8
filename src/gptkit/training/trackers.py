"""`--report-to`: the rows of a run, sent to TensorBoard, Weights & Biases or Trackio through Accelerate's trackers."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptkit.errors import UsageError
from gptkit.training.events import StepEvent


def check_tracker(name: str) -> None:
    """Raise UsageError with the install command when a tracker's package is not there; `none` needs none."""
    if name != "none" and importlib.util.find_spec(name) is None:
        raise UsageError(f"{name} is not installed", where=f"--report-to {name}", fix=f"pip install 'gptkit[{name}]'")


class Tracker:
    """A tracker of one run, opened by the main process; it never asks for a login."""

    def __init__(self, name: str, run: Path, config: Mapping[str, Any]) -> None:
        if name == "wandb" and "WANDB_API_KEY" not in os.environ:
            os.environ.setdefault("WANDB_MODE", "offline")
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        tracker_class = LOGGER_TYPE_TO_CLASS[name]
        where = {"logging_dir": str(run)} if tracker_class.requires_logging_directory else {}
        self._tracker = tracker_class("gptkit" if name != "tensorboard" else "tensorboard", **where)
        self._tracker.start()
        self._tracker.store_init_configuration({key: _plain(value) for key, value in config.items()})

    def log(self, event: StepEvent) -> None:
        """Send a row."""
        row = {name: value for name, value in event.as_row().items() if value is not None and name != "step"}
        self._tracker.log(row, step=event.step)

    def close(self) -> None:
        self._tracker.finish()


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
