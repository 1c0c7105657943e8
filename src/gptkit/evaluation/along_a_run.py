"""GPT-1's figure 2, right: zero-shot scores of the weights that a run saved, between chance and the best published."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gptkit.errors import InputError
from gptkit.evaluation.protocols import Protocol
from gptkit.strict_json import read_json_object

BEST_BEFORE = ("best published before GPT-1", "best published before GPT-2")
FEW = 4  # points that make no curve yet

_STEP = re.compile(r"step-(\d{6,})")


class SavedWeights(NamedTuple):
    """The weights after `step` updates: a model directory, or a checkpoint with weights of the run's model."""

    step: int
    directory: Path
    is_model: bool


class Yardstick(NamedTuple):
    """What guessing gets of a protocol's first measure, and the best that is published of its evaluation."""

    chance: float
    best: float

    def normalised(self, score: float) -> float:
        """Return a score as a share of the way from chance (0) to the best (1)."""
        return (score - self.chance) / (self.best - self.chance)


def saved_weights(run: Path) -> tuple[list[SavedWeights], list[str]]:
    """Return what weights a run has, by step, and a note where they are few.

    Committed checkpoints, and the finished run's model where none of them is of its step. InputError for a directory
    without either; whether a checkpoint is whole shows when it is read.
    """
    saved = {one.step: one for one in _checkpoints(run / "checkpoints")}
    last = _last_step(run)
    if last is not None and (run / "model" / "config.json").is_file():
        saved[last] = SavedWeights(last, run / "model", is_model=True)
    if not saved:
        fix = "name a run directory of gptkit pretrain"
        raise InputError("no committed checkpoint and no finished model here", where=str(run), fix=fix)
    notes = []
    if len(saved) < FEW:
        steps = ", ".join(f"{step:,}" for step in sorted(saved))
        notes.append(
            f"the run has the weights of step {steps} alone: pretrain keeps 2 checkpoints unless keep_checkpoints, a "
            "key of its recipe, says more"
        )
    return [saved[step] for step in sorted(saved)], notes


def _checkpoints(folder: Path) -> Iterable[SavedWeights]:
    for path in folder.iterdir() if folder.is_dir() else ():
        name = _STEP.fullmatch(path.name)
        if name and (path / "MANIFEST.json").is_file():
            yield SavedWeights(int(name[1]), path, is_model=False)


def _last_step(run: Path) -> int | None:
    """Return the step of a finished run's model."""
    try:
        steps = read_json_object(run / "result.json").get("steps")
    except InputError:
        return None
    return steps if isinstance(steps, int) else None


def yardstick(protocol: Protocol, all_protocols: Iterable[Protocol]) -> Yardstick | None:
    """Return the yardstick of a protocol, given all of its evaluation's; None where chance or a better figure lacks.

    The best is what was published before GPT-1, as in its figure, else before GPT-2, else the best figure there is.
    """
    measure = protocol.measures[0]
    published = [one for other in all_protocols for one in other.published if one.measure == measure]
    for model in (*BEST_BEFORE, ""):
        best = max((one.value for one in published if model in ("", one.model)), default=None)
        if best is not None:
            return Yardstick(protocol.chance, best) if protocol.chance is not None and best > protocol.chance else None
    return None
