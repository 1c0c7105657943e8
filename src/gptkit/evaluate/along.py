"""Zero-shot scores of the weights that a run saved, as a table and as GPT-1's figure 2 (right), which draws them
between chance and the best published."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator

from gptkit.console import Console
from gptkit.errors import InputError, UsageError
from gptkit.evaluate.along_plot import Curve, draw_zero_shot
from gptkit.evaluate.gate.suites import TaskSpec
from gptkit.evaluate.jobs import Job, evaluate_jobs, prepare_jobs
from gptkit.evaluate.model import EvaluatedModel
from gptkit.evaluate.options import EvalOptions
from gptkit.evaluate.results import SCHEMA, EvalResults
from gptkit.scoring.measures import MEASURES
from gptkit.scoring.protocols import GeneratedProtocol, Protocol, RuleProtocol
from gptkit.system import files
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import (
    CHECKPOINTS,
    MODEL,
    RESULT,
    SNAPSHOTS,
    WEIGHTS,
    all_steps,
    defect,
    is_committed,
    is_undescribed,
    step_of,
)
from gptkit.training.finished_runs import without_start
from gptkit.training.processes import main_process_first, on_main_process

PICTURE, RESULTS = "zero-shot.png", "zero-shot.json"
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
        """Return a score as a fraction of the way from chance (0) to the best (1)."""
        return (score - self.chance) / (self.best - self.chance)


def evaluate_along(
    run: Path, wanted: Sequence[TaskSpec], options: EvalOptions, accelerator: Accelerator, console: Console
) -> dict[str, Any]:
    """Evaluate the weights that a run saved, in order of their steps; return what `--json` prints."""
    saved, notes = on_main_process(accelerator, lambda: saved_weights(run))
    for note in notes:
        console.warn(note)
    if is_undescribed(saved[-1].directory):
        raise without_start(str(run))
    model = EvaluatedModel(saved[-1].directory, options, accelerator, console)
    jobs = main_process_first(accelerator, lambda: prepare_jobs(wanted, model, options, console.say))
    for job in jobs:
        if any(isinstance(protocol, GeneratedProtocol | RuleProtocol) for protocol in job.protocols):
            message = f"{job.name} asks for texts, which no checkpoint writes"
            raise UsageError(message, where="--all-checkpoints", fix="name tasks that are scored by likelihood")
    if any(job.minimum is not None for job in jobs):
        fix = "leave the minimum out, or evaluate one model"
        raise UsageError("no checkpoint is judged by a minimum", where="--all-checkpoints", fix=fix)
    runs = []
    for step, directory in saved:
        console.say(f"step {step:,}")
        runs.append(evaluate_jobs(jobs, model.with_weights(directory), str(directory)))
    return on_main_process(accelerator, lambda: _report(run, saved, runs, jobs, options, console))


def _report(
    run: Path,
    saved: Sequence[SavedWeights],
    runs: Sequence[EvalResults],
    jobs: Sequence[Job],
    options: EvalOptions,
    console: Console,
) -> dict[str, Any]:
    steps = [weights.step for weights in saved]
    measures = {f"{job.name}/{row.name}": row.measures[0] for job in jobs for row in job.protocols}
    rows = []
    for step, each in zip(steps, runs, strict=True):
        values = {key: each.results[key].metrics[name]["value"] for key, name in measures.items()}
        rows.append((f"{step:,}", *(MEASURES[name].shown(values[key]) for key, name in measures.items())))
    console.table(str(run), ("step", *(f"{key} {name.replace('_', ' ')}" for key, name in measures.items())), rows)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "model": str(run / "model"),
        "checkpoints": [{"step": step, **each.as_json()} for step, each in zip(steps, runs, strict=True)],
    }
    if curves := _curves(jobs, runs, steps, measures):
        with files.translate_os_errors("drawing the scores", fix="make the run directory writable"):
            draw_zero_shot(curves, run / PICTURE, f"{run.name}: zero-shot scores along the run")
        console.say(f"picture: {run / PICTURE}")
        result["picture"] = str(run / PICTURE)
        result["normalised"] = {curve.name: list(curve.scores) for curve in curves}
    else:
        console.say("no picture: none of these tasks has a chance level to draw it from")
    with files.translate_os_errors("writing the scores", fix="make the run directory writable"):
        files.write_report(options.output or run / RESULTS, json.dumps(result, indent=1) + "\n")
    return result


def _curves(
    jobs: Sequence[Job], runs: Sequence[EvalResults], steps: Sequence[int], measures: dict[str, str]
) -> list[Curve]:
    """Return the scores of each protocol between chance and the best published, where both are known."""
    curves = []
    for job in jobs:
        for protocol in job.protocols:
            key = name = f"{job.name}/{protocol.name}"
            between = yardstick(protocol, job.protocols)
            if between is None and protocol.chance is not None and MEASURES[measures[key]].unit == "percent":
                between, name = Yardstick(protocol.chance, 1.0), f"{key} (nothing published: 1 = all right)"
            if between is None:
                continue
            values = [each.results[key].metrics[measures[key]]["value"] for each in runs]
            curves.append(Curve(name, list(steps), [between.normalised(value) for value in values]))
    return curves


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
    published = [figure for other in all_protocols for figure in other.published if figure.measure == measure]
    for model in (*BEST_BEFORE, ""):
        best = max((figure.value for figure in published if model in ("", figure.model)), default=None)
        if best is not None:
            return Yardstick(protocol.chance, best) if protocol.chance is not None and best > protocol.chance else None
    return None
