"""The gate of an evaluation: a baseline read before anything is computed, verdicts, and where they are told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gptkit.commands.eval_tasks import Job
from gptkit.console import Console
from gptkit.errors import GateFailed
from gptkit.evaluation.eval_file import EvaluatedRun
from gptkit.evaluation.gating.baseline import read_baseline
from gptkit.evaluation.gating.comparison import HEADER, Outcome, compare
from gptkit.evaluation.gating.lm_eval_baseline import is_lm_eval, read_lm_eval
from gptkit.evaluation.gating.pairing import Asked
from gptkit.options import EvalOptions
from gptkit.reporting.junit import junit_xml
from gptkit.reporting.summary import annotation, summary_markdown
from gptkit.training import files

COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
STEP_SUMMARY, IN_ACTIONS = "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"


class Gate:
    """What `--baseline`, `--floor`, a suite's bounds, `--junit` and `--summary` ask for.

    Raises InputError for a baseline that cannot be read.
    """

    def __init__(self, options: EvalOptions) -> None:
        self.options = options
        self._of_lm_eval = options.baseline is not None and is_lm_eval(options.baseline)
        is_own = options.baseline is not None and not self._of_lm_eval
        self._baseline = read_baseline(options.baseline) if is_own and options.baseline is not None else None

    def judge(self, present: EvaluatedRun, jobs: Sequence[Job]) -> Outcome | None:
        """Return the outcome, None where nothing was asked; NothingComparable where it cannot be told."""
        options = self.options
        if options.baseline is None and all(job.minimum is None for job in jobs):
            return None
        floors = {job.name: options.floor if job.floor is None else job.floor for job in jobs}
        asked = [Asked(job.name, job.protocols, floors[job.name], job.minimum) for job in jobs]
        baseline = self._baseline
        if self._of_lm_eval and options.baseline is not None:
            examples = {job.name: job.examples.examples for job in jobs}
            baseline, present = read_lm_eval(options.baseline, present, examples)
        return compare(present, baseline, asked)

    def tell(self, outcome: Outcome, console: Console) -> None:
        """Say the verdict first, then what it rests on; write the files that were asked for."""
        if outcome.verdict == "inconclusive":
            console.warn(outcome.headline)
        console.result(outcome.headline)
        for line in outcome.warnings:
            console.warn(line)
        console.table("", HEADER, [row.cells for row in outcome.rows], [COLOURS[row.verdict] for row in outcome.rows])
        self._write(outcome)
        if os.environ.get(IN_ACTIONS) and outcome.verdict != "pass":
            level: Literal["error", "warning"] = "error" if outcome.verdict == "fail" else "warning"
            console.say(annotation(level, "gptkit eval", outcome.headline))

    def _write(self, outcome: Outcome) -> None:
        options, summary = self.options, summary_markdown(outcome.headline, outcome.table(), outcome.warnings)
        with files.failures_told("writing the verdicts", fix="name another file"):
            if options.junit is not None:
                files.write_atomically(options.junit, junit_xml(outcome.rows))
            if options.summary is not None:
                files.write_atomically(options.summary, summary)
            if step_summary := os.environ.get(STEP_SUMMARY):
                with Path(step_summary).open("a", encoding="utf-8") as file:
                    file.write(summary)

    def finish(self, outcome: Outcome, result: Mapping[str, Any], console: Console) -> None:
        """Raise GateFailed, with the result, for a verdict that must stop a build."""
        if outcome.verdict == "fail":
            fix = "see what changed in the model, or write a new baseline with --output if the drop is meant"
            raise GateFailed(outcome.headline, result=result, fix=fix)
