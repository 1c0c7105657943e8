"""What a run's gate says: the verdict on its measures against a baseline and on its minimums, as JSON and as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gptkit.evaluate.gate.gate import RESAMPLES, Verdict, gate, worst
from gptkit.evaluate.gate.pairing import Comparison, Pair, left_out, paired
from gptkit.evaluate.jobs import Job
from gptkit.evaluate.results import EvalResults
from gptkit.scoring.measures import MEASURES, Measure

_NAMED = 3  # regressions in the first line
HEADER = ("metric", "baseline", "value", "difference", "p", "floor", "could find", "verdict")


@dataclass(frozen=True)
class Row:
    """One verdict: of "task/protocol.measure" against the baseline, or on its minimum.

    `message` tells it in a line; `severity` orders the worst first; `cells` are those of a table under HEADER;
    `properties` are its figures by name.
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
    """An absolute bound on a measure, from below when higher is better, else from above."""

    minimum: float
    value: float
    verdict: Verdict


@dataclass(frozen=True)
class Outcome:
    """The verdict on a run; `rows` are in the order of what was asked, `warnings` are for the user."""

    verdict: Verdict
    comparison: Mapping[str, Comparison]
    minimums: Mapping[str, Minimum]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]

    @property
    def headline(self) -> str:
        """The first line: the verdict, and what it rests on, the worst first."""
        if self.verdict == "pass":
            parts = []
            if compared := len(self.comparison):
                parts.append(f"{compared} measure{'s' * (compared > 1)} compared, none worse by its floor")
            if minimums := len(self.minimums):
                parts.append(f"{minimums} minimum{'s' * (minimums > 1)} kept")
            return f"pass: {', '.join(parts) or 'nothing was asked'}"
        worst = sorted((row for row in self.rows if row.verdict == self.verdict), key=lambda row: -row.severity)
        named = "; ".join(row.message for row in worst[:_NAMED])
        more = f"; and {len(worst) - _NAMED} more" if len(worst) > _NAMED else ""
        return f"{self.verdict}: {named}{more}"

    def as_json(self) -> dict[str, Any]:
        """Return the keys that the gate adds to a run's JSON."""
        return {
            "comparison": {key: asdict(entry) for key, entry in self.comparison.items()},
            "minimums": {key: asdict(entry) for key, entry in self.minimums.items()},
            "warnings": list(self.warnings),
            "verdict": self.verdict,
        }


def compare(
    present: EvalResults, baseline: EvalResults | None, jobs: Sequence[Job], *, resamples: int = RESAMPLES
) -> Outcome:
    """Return the outcome against a baseline, if there is one, and of the minimums.

    NothingComparable and InputError as pairing.paired raises them.
    """
    comparison: dict[str, Comparison] = {}
    rows, warnings = [], []
    if baseline is not None:
        pairs = paired(present, baseline, jobs)
        findings = gate({key: pair.scores for key, pair in pairs.items()}, resamples=resamples)
        comparison = {key: pair.comparison(findings[key]) for key, pair in pairs.items()}
        rows = [_compared(key, pair, comparison[key]) for key, pair in pairs.items()]
        warnings = list(left_out(present, baseline))
    minimums: dict[str, Minimum] = {}
    for job in jobs:
        if job.minimum is not None:
            protocol, name = job.protocols[0], job.protocols[0].measures[0]
            value = float(present.results[f"{job.name}/{protocol.name}"].metrics[name]["value"])
            met = value >= job.minimum if MEASURES[name].higher_is_better else value <= job.minimum
            met = met or math.isclose(value, job.minimum, rel_tol=1e-9)
            key = f"{job.name}/{protocol.name}.{name}"
            minimums[key] = Minimum(job.minimum, value, "pass" if met else "fail")
    rows += [_bounded(key, minimum) for key, minimum in minimums.items()]
    return Outcome(worst(row.verdict for row in rows), comparison, minimums, tuple(rows), tuple(warnings))


def _compared(key: str, pair: Pair, found: Comparison) -> Row:
    measure, floor = pair.measure, pair.floor
    digits = _digits(measure, found.difference)
    before, after = f"{found.baseline:.{digits}f}", f"{found.value:.{digits}f}"
    change, could_find = f"{found.difference:+.{digits}f}", _found(found.minimum_detectable)
    figures = f"{change}; p {found.p_value:.2g}, floor {floor:.3g}, {_power(found)}"
    drop = -found.difference if measure.higher_is_better else found.difference
    task, name = key.rsplit(".", 1)
    return Row(
        task,
        name,
        found.verdict,
        f"{key} {before} -> {after} ({figures})",
        drop / floor if floor > 0 else math.inf,
        (key, before, after, change, f"{found.p_value:.2g}", f"{floor:.3g}", could_find, found.verdict),
        {
            "baseline": repr(found.baseline),
            "value": repr(found.value),
            "difference": repr(found.difference),
            "p_value": repr(found.p_value),
            "floor": repr(floor),
            "minimum_detectable": "none" if found.minimum_detectable is None else repr(found.minimum_detectable),
        },
    )


def _bounded(key: str, found: Minimum) -> Row:
    task, name = key.rsplit(".", 1)
    measure, bound, value = MEASURES[name], found.minimum, found.value
    digits = _digits(measure, value - bound)
    side = "at least" if measure.higher_is_better else "at most"
    message = f"{key} {value:.{digits}f}, asked for {side} {bound:.{digits}f}"
    short = abs(value - bound) / (measure.floor_below(bound) if measure.floor else 1.0)
    cells = (key, "", f"{value:.{digits}f}", "", "", f"{side} {bound:.{digits}f}", "", found.verdict)
    return Row(task, name, found.verdict, message, short, cells, {"value": repr(value), "minimum": repr(bound)})


def _digits(measure: Measure, difference: float) -> int:
    """Return how many decimals show a difference by two digits, within reason."""
    least = 2 if measure.unit in ("perplexity", "points") else 3
    if difference == 0:
        return least
    return min(6, max(least, 1 - math.floor(math.log10(abs(difference)))))


def _power(comparison: Comparison) -> str:
    """Return in words the smallest difference that would be found four times in five."""
    if comparison.minimum_detectable is not None:
        return f"could have found {_found(comparison.minimum_detectable)}"
    return "more items would find smaller ones" if comparison.verdict == "fail" else "too few items to find any surely"


def _found(minimum: float | None) -> str:
    return "none" if minimum is None else f"{minimum:.2g}"
