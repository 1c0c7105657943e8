"""The gate of an evaluation: a baseline read before anything is computed, verdicts, and where they are told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gptkit.console import Console
from gptkit.errors import GateFailed, GptkitError, UsageError
from gptkit.evaluate.gate.baseline import read_baseline
from gptkit.evaluate.gate.junit import junit_xml
from gptkit.evaluate.gate.pairing import Asked, require_comparable
from gptkit.evaluate.gate.summary import annotation, summary_markdown
from gptkit.evaluate.gate.verdicts import HEADER, Outcome, compare
from gptkit.evaluate.jobs import Job
from gptkit.evaluate.options import EvalOptions
from gptkit.evaluate.results import EvaluatedRun
from gptkit.scoring.measures import MEASURES
from gptkit.system import files

COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
STEP_SUMMARY, IN_ACTIONS = "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"


class Gate:
    """What `--baseline`, `--floor`, a suite's bounds, `--junit` and `--summary` ask for.

    Raises InputError for a baseline that cannot be read.
    """

    def __init__(self, options: EvalOptions) -> None:
        self.options = options
        self._baseline = None if options.baseline is None else read_baseline(options.baseline)

    def check(self, unscored: EvaluatedRun, jobs: Sequence[Job]) -> None:
        """Refuse, before anything is scored, bounds in the wrong unit, reports of nothing, and another evaluation.

        `unscored` is the present run without metrics and items.
        """
        for flag, path in (("--junit", self.options.junit), ("--summary", self.options.summary)):
            if path is not None and not self._is_asked(jobs):
                fix = "name one: --baseline FILE, or a minimum in the suite"
                raise UsageError("a report of verdicts needs something to judge by", where=flag, fix=fix)
        for asked in self._asked(jobs):
            _check_bounds(asked)
        if self._baseline is not None:
            require_comparable(unscored, self._baseline, self._asked(jobs))

    def _is_asked(self, jobs: Sequence[Job]) -> bool:
        return self.options.baseline is not None or any(job.minimum is not None for job in jobs)

    def _asked(self, jobs: Sequence[Job]) -> list[Asked]:
        floors = [self.options.floor if job.floor is None else job.floor for job in jobs]
        return [Asked(job.name, job.protocols, floor, job.minimum) for job, floor in zip(jobs, floors, strict=True)]

    def judge(self, present: EvaluatedRun, jobs: Sequence[Job]) -> Outcome | None:
        """Return the outcome, None where nothing was asked; NothingComparable where it cannot be told."""
        if not self._is_asked(jobs):
            return None
        return compare(present, self._baseline, self._asked(jobs))

    def tell(self, outcome: Outcome, present: EvaluatedRun, console: Console) -> None:
        """Say the verdict first, then what it rests on; write the reports that were asked for.

        A report that cannot be written is an error, unless the verdict is one already.
        """
        if outcome.verdict == "inconclusive":
            console.warn(outcome.headline)
        console.result(outcome.headline)
        for line in outcome.warnings:
            console.warn(line)
        console.table("", HEADER, [row.cells for row in outcome.rows], [COLOURS[row.verdict] for row in outcome.rows])
        try:
            self._write(outcome, f"{present.model}, baseline {self.options.baseline or 'none'}")
        except GptkitError as error:
            if outcome.verdict != "fail":
                raise
            console.warn(str(error))
        if os.environ.get(IN_ACTIONS) and outcome.verdict != "pass":
            level: Literal["error", "warning"] = "error" if outcome.verdict == "fail" else "warning"
            console.say(annotation(level, "gptkit eval", outcome.headline))

    def _write(self, outcome: Outcome, name: str) -> None:
        options = self.options
        summary = summary_markdown(outcome.headline, outcome.table(), (name, *outcome.warnings))
        with files.translate_os_errors("writing the verdicts", fix="name another file"):
            if options.junit is not None:
                files.write_report(options.junit, junit_xml(outcome.rows, name=f"gptkit eval: {name}"))
            if options.summary is not None:
                files.write_report(options.summary, summary)
            if step_summary := os.environ.get(STEP_SUMMARY):
                with Path(step_summary).open("a", encoding="utf-8") as file:
                    file.write(summary)

    def finish(self, outcome: Outcome, result: Mapping[str, Any], console: Console) -> None:
        """Raise GateFailed, with the result, for a verdict that must stop a build."""
        if outcome.verdict == "fail":
            fix = "see what changed in the model, or write a new baseline with --output if the drop is meant"
            raise GateFailed(outcome.headline, result=result, fix=fix)


def _check_bounds(asked: Asked) -> None:
    """Refuse a floor or minimum that no share can reach: people write 2 for 2 points."""
    first = asked.protocols[0].measures[0]
    for name, bound in (("floor", asked.floor), ("minimum", asked.minimum)):
        if bound is not None and bound > 1 and MEASURES[first].unit == "percent":
            fix = f"write {bound / 100:g} for {bound:g}%"
            raise UsageError(f"a {name} of {bound:g}, but {first} goes from 0 to 1", where=asked.name, fix=fix)
