"""Zero-shot scores of every checkpoint of a run, as a table and as GPT-1's figure 2 (right)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from gptkit.console import Console
from gptkit.errors import InputError, UsageError
from gptkit.evaluate.along_a_run import SavedWeights, Yardstick, saved_weights, yardstick
from gptkit.evaluate.along_plot import Curve, draw_zero_shot
from gptkit.evaluate.gate.suites import SuiteTask
from gptkit.evaluate.jobs import Job, evaluate_job, prepare_job, tasks_of
from gptkit.evaluate.model import EvaluatedModel
from gptkit.evaluate.options import EvalOptions
from gptkit.evaluate.results import SCHEMA, EvaluatedRun
from gptkit.evaluate.tables import shown
from gptkit.scoring.measures import MEASURES
from gptkit.scoring.protocols import ScoredProtocol
from gptkit.system import files
from gptkit.system.run_layout import START, described_in
from gptkit.training.processes import main_process_first, on_main_process

PICTURE, RESULTS = "zero-shot.png", "zero-shot.json"


def evaluate_along(
    run: Path, wanted: Sequence[SuiteTask], options: EvalOptions, accelerator: Accelerator, console: Console
) -> dict[str, Any]:
    """Evaluate the weights that a run saved, in order of their steps; return what `--json` prints."""
    saved, notes = on_main_process(accelerator, lambda: saved_weights(run))
    for note in notes:
        console.warn(note)
    if not (described_in(saved[-1].directory) / "config.json").is_file():
        message = f"the run is unfinished and has no {START}/, written by later versions"
        raise InputError(message, where=str(run), fix="finish it with the version that began it")
    first = EvaluatedModel(saved[-1].directory, options, accelerator, console)
    asked = tasks_of(wanted, first, options)
    jobs = main_process_first(accelerator, lambda: [prepare_job(one, first, options, console.say) for one in asked])
    _refuse_written(jobs)
    if any(job.minimum is not None for job in jobs):
        fix = "leave the minimum out, or evaluate one model"
        raise UsageError("no checkpoint is judged by a minimum", where="--all-checkpoints", fix=fix)
    runs = []
    for one in saved:
        console.say(f"step {one.step:,}")
        runs.append(_evaluate(one, jobs, first))
    return on_main_process(accelerator, lambda: _tell(run, saved, runs, jobs, options, console))


def _refuse_written(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if job.task is None and not all(isinstance(one, ScoredProtocol) for one in job.protocols):
            message = f"{job.name} asks for texts, which no checkpoint writes"
            raise UsageError(message, where="--all-checkpoints", fix="name tasks that are scored by likelihood")


def _evaluate(saved: SavedWeights, jobs: Sequence[Job], first: EvaluatedModel) -> EvaluatedRun:
    model = first.with_weights(saved.directory)
    scores = {key: one for job in jobs for key, one in evaluate_job(job, model).items()}
    return EvaluatedRun(str(saved.directory), model.model_sha256, model.tokenizer_sha256, scores)


def _tell(
    run: Path,
    saved: Sequence[SavedWeights],
    runs: Sequence[EvaluatedRun],
    jobs: Sequence[Job],
    options: EvalOptions,
    console: Console,
) -> dict[str, Any]:
    steps = [one.step for one in saved]
    measures = {f"{job.name}/{one.name}": one.measures[0] for job in jobs for one in job.protocols}
    rows = [
        (f"{step:,}", *(shown(name, each.scores[key].metrics[name]["value"]) for key, name in measures.items()))
        for step, each in zip(steps, runs, strict=True)
    ]
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
        result["normalised"] = {one.name: list(one.scores) for one in curves}
    else:
        console.say("no picture: none of these tasks has a chance level to draw it from")
    with files.translate_os_errors("writing the scores", fix="make the run directory writable"):
        files.write_report(options.output or run / RESULTS, json.dumps(result, indent=1) + "\n")
    return result


def _curves(
    jobs: Sequence[Job], runs: Sequence[EvaluatedRun], steps: Sequence[int], measures: dict[str, str]
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
            values = [each.scores[key].metrics[measures[key]]["value"] for each in runs]
            curves.append(Curve(name, list(steps), [between.normalised(value) for value in values]))
    return curves
