"""The gate's verdict on a run, and its reports: JSON, screen, JUnit XML, Markdown, GitHub Actions annotations."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from gptkit.console import Console
from gptkit.errors import GptkitError, NothingComparable
from gptkit.evaluate.gate.gate import RESAMPLES, Verdict, gate, worst
from gptkit.evaluate.gate.pairing import Comparison, Pair, Undefined, left_out, paired, require_comparable
from gptkit.evaluate.jobs import Job
from gptkit.evaluate.options import EvalOptions
from gptkit.evaluate.results import EvalResults
from gptkit.report.text import escape_markdown, known_columns, one_line
from gptkit.scoring.measures import MEASURES, Measure
from gptkit.system import files

_NAMED = 3  # rows that the headline names
COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow", "n/a": "red"}
MINIMUM = "minimum"
SMALLEST_P = 1e-12  # shown: what is smaller is a bound, or beyond what resampling can tell
STEP_SUMMARY, IN_ACTIONS = "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"
FIGURES = ("baseline", "value", "difference", "p_value", "floor", "minimum_detectable")  # properties of a JUnit case
HEADER = ("metric", "baseline", "value", "difference", "p", "floor", "detectable drop", "verdict")


@dataclass(frozen=True)
class Row:
    """One verdict on "task/protocol.measure" against the baseline, or as "task/protocol.measure.minimum" on its bound.

    `message` is one line, `severity` sorts the worst first, `cells` are a table's under HEADER, `properties` the
    figures by name.
    """

    task: str
    measure: str
    verdict: Verdict
    message: str
    severity: float
    cells: tuple[str, ...]
    properties: Mapping[str, str]


@dataclass(frozen=True)
class Minimum:
    """An absolute bound on a measure: from below if higher is better, else from above; without a value, the reason."""

    minimum: float
    value: float | None
    verdict: Verdict
    reason: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The verdict on a run; `rows` are in the order of the jobs, `warnings` are for the user."""

    verdict: Verdict
    comparison: Mapping[str, Comparison | Undefined]
    minimums: Mapping[str, Minimum]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]

    @property
    def headline(self) -> str:
        """The verdict and its reasons in one line, the worst first."""
        if self.verdict == "pass":
            parts = []
            if compared := len(self.comparison):
                parts.append(f"{compared} measure{'s' * (compared > 1)} compared, none dropped by its floor or more")
            if minimums := len(self.minimums):
                parts.append(f"{minimums} minimum{'s' * (minimums > 1)} met")
            return f"pass: {', '.join(parts) or 'nothing was compared'}"
        worst = sorted((row for row in self.rows if row.verdict == self.verdict), key=lambda row: -row.severity)
        named = "; ".join(row.message for row in worst[:_NAMED])
        more = f"; and {len(worst) - _NAMED} more" if len(worst) > _NAMED else ""
        return f"{self.verdict}: {named}{more}"

    @property
    def short(self) -> str:
        """The verdict for the error line, which follows the headline: what it is about, without figures."""
        first, *others = [f"{row.task}.{row.measure}" for row in self.rows if row.verdict == self.verdict]
        more = f" and {len(others)} more" if others else ""
        return f"the gate {'failed' if self.verdict == 'fail' else 'could not judge'}: {first}{more}"

    def as_json(self) -> dict[str, Any]:
        """Return the keys that the gate adds to the JSON of a run."""
        return {
            "comparison": {key: asdict(entry) for key, entry in self.comparison.items()},
            "minimums": {
                key: {name: value for name, value in asdict(entry).items() if name != "reason" or value}
                for key, entry in self.minimums.items()
            },
            "warnings": list(self.warnings),
            "verdict": self.verdict,
        }


def compare(
    present: EvalResults, baseline: EvalResults | None, jobs: Sequence[Job], *, resamples: int = RESAMPLES
) -> Outcome:
    """Return the verdict against the baseline, if any, and on the minimums; raises as `paired` does."""
    comparison: dict[str, Comparison | Undefined] = {}
    rows: list[Row] = []
    warnings: list[str] = []
    if baseline is not None:
        pairs = paired(present, baseline, jobs)
        suite = {key: pair.scores for key, pair in pairs.items() if isinstance(pair, Pair)}
        findings = gate(suite, resamples=resamples) if suite or not pairs else {}
        for key, pair in pairs.items():
            if isinstance(pair, Undefined):
                comparison[key] = pair
                rows.append(_undefined(key, pair.reason, (pair.baseline, pair.value)))
            else:
                comparison[key] = found = pair.comparison(findings[key])
                rows.append(_compared(key, pair, found))
        warnings = list(left_out(present, baseline))
    minimums: dict[str, Minimum] = {}
    for job in jobs:
        if job.minimum is not None:
            protocol, name = job.protocols[0], job.protocols[0].measures[0]
            key, figures = f"{job.name}/{protocol.name}.{name}", present.results[f"{job.name}/{protocol.name}"].metrics
            value = figures[name]["value"]
            if value is None:
                minimums[key] = Minimum(job.minimum, None, "n/a", reason := figures[name]["reason"])
                undefined = _undefined(key, f"it is n/a: {reason}", (None, None))
                rows.append(replace(undefined, measure=f"{name}.{MINIMUM}"))
                continue
            met = value >= job.minimum if MEASURES[name].higher_is_better else value <= job.minimum
            met = met or math.isclose(value, job.minimum, rel_tol=1e-9)
            minimums[key] = Minimum(job.minimum, value, "pass" if met else "fail")
            rows.append(_bounded(key, job.minimum, value, minimums[key].verdict))
    verdict = worst(row.verdict for row in rows)
    unsure = [row for row in rows if row.verdict in ("n/a", "inconclusive") and row.verdict != verdict]
    warnings += [f"{row.verdict}: {row.message}" for row in unsure]  # the others are in the headline
    return Outcome(verdict, comparison, minimums, tuple(rows), tuple(warnings))


def not_comparable(
    present: EvalResults, baseline: EvalResults, jobs: Sequence[Job], refusal: NothingComparable
) -> Outcome:
    """Return the outcome of a comparison that was refused: a row for each task, with its own reason if it has one."""
    rows = []
    for job in jobs:
        reason = f"not compared, because of another task: {refusal.message}"
        try:
            require_comparable(present, baseline, [job])
        except NothingComparable as error:
            reason = error.message
        rows.append(Row(job.name, "comparison", "n/a", reason, 0.0, (job.name, *[""] * 6, "n/a"), {"reason": reason}))
    return Outcome("n/a", {}, {}, tuple(rows), ())


def _undefined(key: str, reason: str, values: Sequence[float | None]) -> Row:
    """Return the row of a measure that has no value in the baseline or in this run."""
    task, name = key.rsplit(".", 1)
    cells = (key, *map(MEASURES[name].shown, values), *["n/a"] * 4, "n/a")
    return Row(task, name, "n/a", f"{key} cannot be gated: {reason}", 0.0, cells, {"reason": reason})


def _compared(key: str, pair: Pair, found: Comparison) -> Row:
    measure, floor = pair.measure, pair.floor
    digits = _digits(measure, found.difference)
    before, after = f"{found.baseline:.{digits}f}", f"{found.value:.{digits}f}"
    change, least = f"{found.difference:+.{digits}f}", f"{floor:.3g}"
    p_value = f"{found.p_value:.2g}" if found.p_value >= SMALLEST_P else f"< {SMALLEST_P:g}"
    detectable, power = "none", ", too few items to detect any drop reliably"
    if found.minimum_detectable is not None:
        detectable = f"{found.minimum_detectable:.2g}"
        power = f", a regression of {detectable} would have been detected"
    if found.verdict == "fail":  # whose own drop was
        power = ""
    drop = -found.difference if measure.higher_is_better else found.difference
    figures = asdict(found)
    task, name = key.rsplit(".", 1)
    return Row(
        task,
        name,
        found.verdict,
        f"{key} {before} -> {after} ({change}; p {p_value}, floor {least}{power})",
        drop / floor if floor > 0 else math.inf,
        (key, before, after, change, p_value, least, detectable, found.verdict),
        {name: "none" if figures[name] is None else repr(figures[name]) for name in FIGURES},
    )


def _bounded(key: str, bound: float, value: float, verdict: Verdict) -> Row:
    task, name = key.rsplit(".", 1)
    measure = MEASURES[name]
    digits = _digits(measure, value - bound)
    side = "at least" if measure.higher_is_better else "at most"
    message = f"{key} {value:.{digits}f}, but {side} {bound:.{digits}f} is required"
    short = abs(value - bound) / (measure.floor_below(bound) if measure.floor else 1.0)
    cells = (key, "", f"{value:.{digits}f}", "", "", f"{side} {bound:.{digits}f}", "", verdict)
    figures = {"value": repr(value), MINIMUM: repr(bound)}
    return Row(task, f"{name}.{MINIMUM}", verdict, message, short, cells, figures)


def _digits(measure: Measure, difference: float) -> int:
    """Return how many decimals show two digits of a difference: from 2 or 3 up to 6."""
    least = 2 if measure.unit in ("perplexity", "points") else 3
    if difference == 0:
        return least
    return min(6, max(least, 1 - math.floor(math.log10(abs(difference)))))


def show_outcome(outcome: Outcome, model: str, options: EvalOptions, console: Console) -> None:
    """Print the verdict, then its reasons; write the requested reports.

    A report that cannot be written is an error, unless the verdict is one already.
    """
    (console.warn if outcome.verdict == "inconclusive" else console.result)(outcome.headline)
    for line in outcome.warnings:
        console.warn(line)
    columns, figures = known_columns(HEADER[:-1], [row.cells[:-1] for row in outcome.rows])
    columns.append(HEADER[-1])
    rows = [(*cells, row.verdict) for cells, row in zip(figures, outcome.rows, strict=True)]
    console.table("", columns, rows, [COLOURS[row.verdict] for row in outcome.rows])
    name = f"{model}, baseline {options.baseline or 'none'}"
    summary = summary_markdown(outcome.headline, [columns, *rows], (name, *outcome.warnings))
    try:
        with files.translate_os_errors("writing the verdicts", fix="choose another file"):
            if options.junit is not None:
                files.write_report(options.junit, junit_xml(outcome.rows, name=f"gptkit eval: {name}"))
            if options.summary is not None:
                files.write_report(options.summary, summary)
    except GptkitError as error:
        if outcome.verdict not in ("fail", "n/a"):
            raise
        console.warn(str(error))
    if step_summary := os.environ.get(STEP_SUMMARY):
        try:
            with Path(step_summary).open("a", encoding="utf-8") as file:
                file.write(summary)
        except OSError as error:
            console.warn(f"the summary was not appended to ${STEP_SUMMARY} ({step_summary}): {error.strerror}")
    if os.environ.get(IN_ACTIONS) and outcome.verdict != "pass":
        level: Literal["error", "warning"] = "warning" if outcome.verdict == "inconclusive" else "error"
        console.say(annotation(level, "gptkit eval", outcome.headline))


def junit_xml(verdicts: Sequence[Row], *, name: str = "gptkit eval") -> str:
    """Return a JUnit test suite with a test case for each verdict.

    An inconclusive verdict is neither passed nor failed: its case is skipped, which CI viewers show as such.
    """
    order = ("fail", "n/a", "inconclusive")
    failures, errors, skipped = (str(sum(row.verdict == verdict for row in verdicts)) for verdict in order)
    counts = {"tests": str(len(verdicts)), "failures": failures, "errors": errors, "skipped": skipped}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": one_line(name), **counts})
    for row in verdicts:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": one_line(row.task), "name": one_line(row.measure)}
        )
        properties = ElementTree.SubElement(case, "properties")
        for key, value in {"verdict": row.verdict, **row.properties}.items():
            ElementTree.SubElement(properties, "property", {"name": one_line(key), "value": one_line(value)})
        message = one_line(row.message)
        if row.verdict == "fail":
            ElementTree.SubElement(case, "failure", {"message": message, "type": "regression"}).text = message
        elif row.verdict == "n/a":
            ElementTree.SubElement(case, "error", {"message": message, "type": "undefined"}).text = message
        elif row.verdict == "inconclusive":
            ElementTree.SubElement(case, "skipped", {"message": f"inconclusive: {message}"})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def summary_markdown(headline: str, table: Sequence[Sequence[object]], warnings: Sequence[str] = ()) -> str:
    """Return the verdict, a table of cells (the first row is its header) and the warnings as Markdown.

    Names are escaped, so none is read as Markdown or HTML.
    """
    verdict, _, rest = headline.partition(":")
    parts = [f"## gptkit eval: {escape_markdown(verdict)}"]
    if rest.strip():
        parts.append(escape_markdown(rest))
    if len(table) > 1:
        lines = ["| " + " | ".join(escape_markdown(str(cell)) for cell in row) + " |" for row in table]
        parts.append("\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]]))
    if warnings:
        parts.append("\n".join(f"- {escape_markdown(line)}" for line in warnings))
    return "\n\n".join(parts) + "\n"


def annotation(level: Literal["error", "warning"], title: str, text: str) -> str:
    """Return the workflow command that makes GitHub Actions show a text as an annotation."""
    escaped = one_line(title).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={escaped}::{one_line(text).replace('%', '%25')}"
