"""`gptkit eval --all-checkpoints`: zero-shot scores of every saved step of a run, as a table and as a plot.

The plot is GPT-1's figure 2 (right): scores on a scale from chance (0) to the best published (1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gptkit.console import Console
from gptkit.errors import UsageError
from gptkit.evaluate.jobs import Job, TaskSpec, evaluate_jobs, prepare_jobs
from gptkit.evaluate.options import EvalOptions
from gptkit.evaluate.results import SCHEMA, EvalResults
from gptkit.report.plots import COLOURS, DASHES, MARKERS, save, set_title
from gptkit.scoring.measures import MEASURES
from gptkit.scoring.protocols import GeneratedProtocol, Protocol, RuleProtocol
from gptkit.system import files
from gptkit.system.writing import json_text
from gptkit.tasks.heads import Head
from gptkit.training.finished_runs import require_described
from gptkit.training.saved_weights import saved_weights

PICTURE, RESULTS = "zero-shot.png", "zero-shot.json"
BEST_BEFORE = ("best published before GPT-1", "best published before GPT-2")
UNPUBLISHED = "(nothing published: 1 = all right)"  # part of a key in zero-shot.json, which scripts look up
UNPUBLISHED_LEGEND = "(no published score: 1 = all correct)"


class Yardstick(NamedTuple):
    """The chance level of a protocol's first measure, and the best published score of its evaluation."""

    chance: float
    best: float

    def normalized(self, score: float) -> float:
        """Return a score as a fraction of the way from chance (0) to the best (1)."""
        return (score - self.chance) / (self.best - self.chance)


def evaluate_all_checkpoints(
    run: Path, wanted: Sequence[TaskSpec], options: EvalOptions, console: Console
) -> dict[str, Any]:
    """Evaluate the weights that a run saved, in order of steps; return what `--json` prints."""
    saved, notes = saved_weights(run)
    for note in notes:
        console.warn(note)
    last = saved[max(saved)]
    require_described(last, str(run))
    jobs = prepare_jobs(wanted, Head.of(last), options, console.say)
    for job in jobs:
        if any(isinstance(protocol, GeneratedProtocol | RuleProtocol) for protocol in job.protocols):
            message = f"{job.name} is scored on generated text, which --all-checkpoints does not support"
            raise UsageError(message, where="--all-checkpoints", fix="choose tasks that are scored by likelihood")
    if any(job.minimum is not None for job in jobs):
        fix = "leave the minimum out, or evaluate one model"
        raise UsageError("--all-checkpoints does not support minimums", where="--all-checkpoints", fix=fix)

    from gptkit.evaluate.model import open_model  # imports torch
    from gptkit.training.processes import on_main_process

    model, runs = open_model(last, options, console), {}
    for step, directory in saved.items():
        console.say(f"step {step:,}")
        runs[step] = evaluate_jobs(jobs, model.with_weights(directory), str(directory))
    return on_main_process(model.accelerator, lambda: _report(run, runs, jobs, options, console))


def _report(
    run: Path, runs: Mapping[int, EvalResults], jobs: Sequence[Job], options: EvalOptions, console: Console
) -> dict[str, Any]:
    """Print, plot and write the results by step."""
    columns, curves = {}, {}
    others: dict[str, dict[str, Sequence[float | None]]] = {}  # by measure: those without a chance level
    notes: dict[str, None] = {}  # each once
    for job in jobs:
        for protocol in job.protocols:
            key = f"{job.name}/{protocol.name}"
            measure = MEASURES[protocol.measures[0]]
            entries = [results.results[key].metrics[measure.name] for results in runs.values()]
            values = [entry["value"] for entry in entries]
            notes |= {f"n/a: {key}: {entry['reason']}": None for entry in entries if entry["value"] is None}
            if protocol is job.usual:  # those of the others are in the JSON
                columns[f"{key} {measure.label}"] = [measure.shown(value) for value in values]
            between = yardstick(protocol, job.protocols)
            if between is None and protocol.chance is not None and measure.unit == "percent":
                between, key = Yardstick(protocol.chance, 1.0), f"{key} {UNPUBLISHED}"
            if between is not None and values != [None] * len(values):
                curves[key] = [None if value is None else between.normalized(value) for value in values]
            elif protocol is job.usual and values != [None] * len(values):
                others.setdefault(measure.label, {})[key] = values
    rows = list(zip((f"{step:,}" for step in runs), *columns.values(), strict=True))
    console.table(str(run), ("step", *columns), rows)
    for note in notes:
        console.result(note)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "model": str(run / "model"),
        "checkpoints": [{"step": step, **results.as_json()} for step, results in runs.items()],
    }
    if curves or others:
        with files.translate_os_errors("plotting the scores", fix="make the run directory writable"):
            plotted = {key.replace(UNPUBLISHED, UNPUBLISHED_LEGEND): curve for key, curve in curves.items()}
            title = f"{run.name}: zero-shot scores along the run"
            draw_zero_shot([*runs], plotted, run / PICTURE, title, others)
        console.say(f"plot: {run / PICTURE}")
        result["picture"] = str(run / PICTURE)
    else:
        console.say("no plot: none of these figures is defined")
    if curves:
        result["normalised"] = curves
    with files.translate_os_errors("writing the scores", fix="make the run directory writable"):
        files.write_report(options.output or run / RESULTS, json_text(result, indent=1) + "\n")
    return result


def yardstick(protocol: Protocol, all_protocols: Iterable[Protocol]) -> Yardstick | None:
    """Return the yardstick of a protocol, given all protocols of its evaluation.

    None without a chance level and a better published score. The best is what was published before GPT-1, as in its
    figure, else before GPT-2, else the best score published at all.
    """
    measure = protocol.measures[0]
    published = [figure for other in all_protocols for figure in other.published if figure.measure == measure]
    for model in (*BEST_BEFORE, ""):
        best = max((figure.value for figure in published if model in ("", figure.model)), default=None)
        if best is not None:
            return Yardstick(protocol.chance, best) if protocol.chance is not None and best > protocol.chance else None
    return None


def draw_zero_shot(
    steps: Sequence[int],
    curves: Mapping[str, Sequence[float | None]],
    path: Path,
    title: str,
    others: Mapping[str, Mapping[str, Sequence[float | None]]] = {},
) -> None:
    """Plot scores (step,) on a scale from chance (0) to the best published (1) by updates, as GPT-1's figure 2 (right).

    `others` have no chance level: the values of each measure are drawn on axes of their own. Step 0 has no place on the
    logarithmic axis and is skipped; None leaves a gap. The same curves give the same bytes.
    """
    from matplotlib.figure import Figure  # not pyplot, which looks for a display and keeps state

    panels = {"score, from chance to the best": curves} if curves or not others else {}
    panels |= others
    count = sum(map(len, panels.values()))
    height = 4.2 * len(panels) + 0.17 * max(0, count - 18)
    figure = Figure(figsize=(7.6, height), layout="constrained")
    drawn, ticks, number = [step > 0 for step in steps], _apart({step for step in steps if step > 0}), 0
    lines: list[Any] = []
    for axes, (ylabel, panel) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        own = []
        for name, scores in panel.items():
            own += axes.plot(
                [*compress(steps, drawn)],
                np.array(scores, np.float64)[drawn],
                color=COLOURS[number % len(COLOURS)],
                linestyle=DASHES[number // len(COLOURS) % len(DASHES)],
                marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
                markersize=4.5,
                linewidth=1.6,
                label=name,
            )
            number += 1
        if panel is curves:
            _mark(axes, 0.0, "chance", side="right")  # where curves seldom are
            _mark(axes, 1.0, "best published score, or 100% correct", side="left")
        axes.set_xscale("log")
        axes.set_xticks(ticks, labels=[f"{step:,}" for step in ticks])
        axes.set_xticks([], minor=True)
        axes.set(xlabel="updates", ylabel=ylabel)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        # The legend lists the curves of each panel in the order of their right ends.
        ends = [scores[-1] or 0.0 for scores in panel.values()]
        lines += [own[index] for index in sorted(range(len(own)), key=lambda index: -ends[index])]
    set_title(figure.axes[0], title, loc="left", fontsize=10)
    figure.legend(handles=lines, loc="outside right center", frameon=False, fontsize=8)
    save(figure, path)


def _mark(axes: Any, height: float, label: str, *, side: str) -> None:
    """Draw a dashed line with its label, below it on the right or above it on the left."""
    right = side == "right"
    axes.axhline(height, color="#777777", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        label,
        (float(right), height),
        xycoords=("axes fraction", "data"),
        xytext=(-4, -3) if right else (4, 3),
        textcoords="offset points",
        ha=side,
        va="top" if right else "bottom",
        color="#555555",
        fontsize=8,
    )


def _apart(steps: set[int]) -> list[int]:
    """Return steps whose labels do not overlap on the logarithmic axis, always including the last."""
    ordered = sorted(steps, reverse=True)
    kept = ordered[:1]
    for step in ordered[1:]:
        if math.log(kept[-1] / step) >= 0.11 * math.log(ordered[0] / ordered[-1]):
            kept.append(step)
    return kept[::-1]
