"""GPT-1's figure 2, right: zero-shot scores of the weights that a run saved, between chance and the best published."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gptkit.errors import InputError
from gptkit.scoring.protocols import Protocol
from gptkit.system.json_files import read_json_object
from gptkit.system.run_layout import (
    CHECKPOINTS,
    MODEL,
    RESULT,
    SNAPSHOTS,
    WEIGHTS,
    all_steps,
    defect,
    is_committed,
    step_of,
)

BEST_BEFORE = ("best published before GPT-1", "best published before GPT-2")
FEW = 4  # points that make no curve yet


class SavedWeights(NamedTuple):
    """The weights after `step` updates: those of the run's model, of a snapshot, or of a checkpoint."""

    step: int
    directory: Path


class Yardstick(NamedTuple):
    """What guessing gets of a protocol's first measure, and the best that is published of its evaluation."""

    chance: float
    best: float

    def normalised(self, score: float) -> float:
        """Return a score as a share of the way from chance (0) to the best (1)."""
        return (score - self.chance) / (self.best - self.chance)


def saved_weights(run: Path) -> tuple[list[SavedWeights], list[str]]:
    """Return what whole weights a run has, by step, and a line for each that is damaged, and where they are few.

    Committed checkpoints and snapshots, and a finished run's model. InputError for a directory without any.
    """
    saved: dict[int, SavedWeights] = {}
    notes = []
    for path in [*all_steps(run / CHECKPOINTS), *all_steps(run / SNAPSHOTS)]:
        if is_committed(path):
            if reason := defect(path, files=WEIGHTS):
                notes.append(f"{path} is left out: {reason}")
            else:
                saved[step_of(path)] = SavedWeights(step_of(path), path)
    step = _step_of_model(run)
    if step is not None and (run / MODEL / "config.json").is_file():
        saved[step] = SavedWeights(step, run / MODEL)
    if not saved and notes:
        fix = "restore one from a copy"
        raise InputError(f"none of the weights that the run saved are whole: {notes[0]}", where=str(run), fix=fix)
    if not saved and (seeds := sorted(run.glob("seed-*"))):
        raise InputError("each seed has weights of its own", where=str(run), fix=f"--all-checkpoints {seeds[0]}")
    if not saved:
        fix = "name a run directory of gptkit pretrain"
        raise InputError("no whole checkpoint, no snapshot and no finished model", where=str(run), fix=fix)
    if len(saved) < FEW:
        steps = ", ".join(f"{step:,}" for step in sorted(saved))
        notes.append(f"only the weights of step {steps} were kept: a recipe's key snapshots says how many are")
    return [saved[step] for step in sorted(saved)], notes


def _step_of_model(run: Path) -> int | None:
    """Return the step of a finished run's model: the last, of a fine-tuning run the best, of several seeds None."""
    try:
        result = read_json_object(run / RESULT)
    except InputError:
        return None
    seeds = result.get("per_seed")
    step = result.get("best_step", result.get("steps"))  # the steps of all seeds together
    has_several = isinstance(seeds, list) and len(seeds) > 1
    return step if isinstance(step, int) and not has_several else None


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
