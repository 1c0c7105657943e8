"""The weights that a run saved along its way, by step."""

from __future__ import annotations

from pathlib import Path

from gptkit.errors import InputError
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import (
    CHECKPOINTS,
    MODEL,
    RESULT,
    SNAPSHOTS,
    WEIGHTS,
    all_steps,
    defect,
    did_you_mean,
    is_committed,
    step_of,
)

FEW = 4  # fewer points than these make no curve


def saved_weights(run: Path) -> tuple[dict[int, Path], list[str]]:
    """Return the directories of intact weights by step, and notes on damaged ones and on runs that kept few.

    They are committed checkpoints, snapshots and a finished run's model. InputError for a directory without any.
    """
    if not run.is_dir():
        raise InputError("no such run", where=str(run), fix=did_you_mean(run) or "gptkit runs ls lists them")
    saved: dict[int, Path] = {}
    notes = []
    for path in [*all_steps(run / CHECKPOINTS), *all_steps(run / SNAPSHOTS)]:
        if is_committed(path):
            if reason := defect(path, files=WEIGHTS):
                notes.append(f"{path} is skipped: {reason}")
            else:
                saved[step_of(path)] = path
    step = _step_of_model(run)
    if step is not None and (run / MODEL / "config.json").is_file():
        saved[step] = run / MODEL
    if not saved and notes:
        fix = "restore one from a copy"
        raise InputError(f"all weights that the run saved are damaged: {notes[0]}", where=str(run), fix=fix)
    if not saved and (seeds := sorted(run.glob("seed-*"))):
        fix = f"choose one: {seeds[0]}"
        raise InputError("each seed has its own weights", where=str(run), fix=fix)
    if not saved:
        fix = "pass a run directory of gptkit pretrain"
        raise InputError("no intact checkpoint, no snapshot and no finished model", where=str(run), fix=fix)
    if len(saved) < FEW:
        shown = [f"{step:,}" for step in sorted(saved)]
        steps = f"steps {', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else f"step {shown[0]}"
        notes.append(f"only the weights of {steps} were kept; to keep more, set the recipe key `snapshots`")
    return dict(sorted(saved.items())), notes


def _step_of_model(run: Path) -> int | None:
    """Return the step of a finished run's model: the last, or the best of a fine-tuning run; None for several seeds."""
    try:
        result = read_json_object(run / RESULT)
    except InputError:
        return None
    seeds = result.get("per_seed")
    step = result.get("best_step", result.get("steps"))  # with several seeds, `steps` is their total
    has_several = isinstance(seeds, list) and len(seeds) > 1
    return step if isinstance(step, int) and not has_several else None
