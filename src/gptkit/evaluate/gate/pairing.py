"""Match a run with its baseline, item by item, and refuse to compare what is not comparable.

The baseline must have every task and protocol of the current run, with the same data and settings and, where tokens
are counted, the same tokenizer: else NothingComparable. What only the baseline has is reported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gptkit.errors import InputError, NothingComparable
from gptkit.evaluate.gate.gate import Finding, Verdict
from gptkit.evaluate.jobs import Job
from gptkit.evaluate.results import VERSION, EvalResults, ProtocolResult
from gptkit.scoring.measures import MEASURES, Columns, Measure, Scores, value_of
from gptkit.scoring.running_text import WINDOW

EVAL_COMMAND = "gptkit eval --output baseline.json"  # in a fix, where the command has more to say
_ANOTHER = f"evaluate the baseline again the same way ({EVAL_COMMAND})"
_LISTED = 5  # results of a baseline that an error names


@dataclass(frozen=True)
class Comparison:
    """One measure of both runs, in its unit; difference = value - baseline, floor is the smallest drop that counts.

    The other fields are gate.Finding's.
    """

    baseline: float
    value: float
    difference: float
    p_value: float
    floor: float
    minimum_detectable: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Undefined:
    """A Comparison of a measure that has no value in one run or both, for a `reason`."""

    baseline: float | None
    value: float | None
    reason: str
    difference: None = None
    p_value: None = None
    floor: None = None
    minimum_detectable: None = None
    verdict: Verdict = "n/a"


@dataclass(frozen=True, eq=False)
class Pair:
    """A measure of both runs over the same items in the same order.

    `scores` are what the gate compares, `baseline` the baseline's columns, `before` and `after` the values, and `floor`
    the smallest drop that counts, in the measure's unit.
    """

    measure: Measure
    scores: Scores
    baseline: Columns
    before: float
    after: float
    floor: float

    def comparison(self, found: Finding) -> Comparison:
        """Convert the gate's finding to the unit of the measure."""
        least = found.minimum_detectable
        if least is not None:
            with np.errstate(over="ignore"):
                least = self.measure.statistic.in_unit(least, self.baseline)
            least = least if math.isfinite(least) else None
        change = self.after - self.before
        return Comparison(self.before, self.after, change, found.p_value, self.floor, least, found.verdict)


def require_comparable(present: EvalResults, baseline: EvalResults, jobs: Sequence[Job]) -> None:
    """Check all that can be checked without the present scores.

    NothingComparable, naming the culprit, if the baseline lacks a task or protocol or was evaluated another way.
    """
    for job in jobs:
        if not any(key.startswith(f"{job.name}/") for key in baseline.results):
            raise _missing(job.name, baseline)
        for protocol in sorted(job.protocols, key=lambda each: f"{job.name}/{each.name}" not in baseline.results):
            key = f"{job.name}/{protocol.name}"
            if key not in baseline.results:
                raise _missing(key, baseline)
            _require_same(key, baseline.results[key], present.results[key])
            if present.tokenizer_sha256 is not None and present.tokenizer_sha256 == baseline.tokenizer_sha256:
                continue
            for name in protocol.measures[: protocol.gated]:
                if protocol.per_token or MEASURES[name].per_token:
                    message = f"{key}.{name} counts tokens, but the baseline used a different tokenizer"
                    fix = "compare models with one tokenizer, or protocols per word or byte: --task NAME/PROTOCOL"
                    raise NothingComparable(message, where="--baseline", fix=fix)


def paired(present: EvalResults, baseline: EvalResults, jobs: Sequence[Job]) -> dict[str, Pair | Undefined]:
    """Return every gated measure of the jobs, by "task/protocol.measure".

    NothingComparable, naming the culprit, if the baseline cannot be compared; InputError if its items contradict what
    it says of them.
    """
    require_comparable(present, baseline, jobs)
    pairs: dict[str, Pair | Undefined] = {}
    asked = [(job, protocol) for job in jobs for protocol in job.protocols]
    for job, protocol in asked:
        key = f"{job.name}/{protocol.name}"
        before, after = baseline.results[key].items, present.results[key].items
        assert before is not None
        assert after is not None
        places = {name: place for place, name in enumerate(before.ids)}
        if alone := sorted(set(places) ^ set(after.ids)):
            message = f"{key}: the data are the same, but item {alone[0][:60]!r} is only in one run"
            raise InputError(message, where="--baseline", fix=_ANOTHER)
        order = [places[name] for name in after.ids]
        for index, name in enumerate(protocol.measures[: protocol.gated]):
            full, measure = f"{key}.{name}", MEASURES[name]
            for column in measure.statistic.columns:
                if column not in before.columns:
                    message = f"{full}: the baseline's items have no {column!r}"
                    raise NothingComparable(message, where="--baseline", fix=_ANOTHER)
            columns = {column: before.columns[column][order] for column in measure.statistic.columns}
            for column in measure.statistic.asked:
                if not np.array_equal(columns[column], after.columns[column]):
                    message = f"{full}: the items' {column!r} differ from the baseline's"
                    raise NothingComparable(message, where="--baseline", fix=_ANOTHER)
            values = value_of(measure, columns), value_of(measure, after.columns)
            reasons = [
                run.results[key].metrics.get(name, {}).get("reason")
                or ("" if math.isfinite(value) else measure.statistic.undefined(own))
                for run, value, own in zip((baseline, present), values, (columns, after.columns), strict=True)
            ]
            if any(reasons):
                known = [None if reason else value for reason, value in zip(reasons, values, strict=True)]
                runs = "both runs" if all(reasons) else "the baseline" if reasons[0] else "this run"
                reason = f"it is n/a in {runs}: {reasons[1] or reasons[0]}"
                pairs[full] = Undefined(known[0], known[1], reason)
                continue
            floor = job.floor if index == 0 and job.floor is not None else measure.floor_below(values[0])
            scores = measure.statistic.scores(columns, after.columns, floor)
            pairs[full] = Pair(measure, scores, columns, *values, floor)
    return pairs


def left_out(present: EvalResults, baseline: EvalResults) -> Iterator[str]:
    """Yield a line for each task, or protocol of a task, that only one of the runs has."""
    tasks = {key.split("/")[0] for key in present.results}
    for task in sorted({key.split("/")[0] for key in baseline.results} - tasks):
        yield f"{task} is in the baseline but was not evaluated in this run"
    for key in sorted(set(baseline.results) - set(present.results)):
        if key.split("/")[0] in tasks:
            yield f"{key} is in the baseline but was not evaluated in this run"
    for key in sorted(set(present.results) - set(baseline.results)):
        yield f"{key} is not in the baseline, and was not compared"


def _missing(name: str, baseline: EvalResults) -> NothingComparable:
    has = sorted(baseline.results)
    more = f" and {len(has) - _LISTED} more" if len(has) > _LISTED else ""
    only = f", only {', '.join(has[:_LISTED])}{more}" if has else ""
    fix = f"evaluate only what it has (--task NAME/PROTOCOL), or {_ANOTHER}" if has else _ANOTHER
    return NothingComparable(f"the baseline has no {name}{only}", where="--baseline", fix=fix)


def _require_same(key: str, before: ProtocolResult, after: ProtocolResult) -> None:
    """Refuse a baseline with different data or settings."""
    if before.data_sha256 != after.data_sha256:
        here, there = f"sha256 {after.data_sha256[:12]}", f"sha256 {before.data_sha256[:12]}"
        found = f"{here} here, {there} in the baseline"
        if after.n and after.n != before.n:
            examples = f"{after.n:,} example{'s' * (after.n > 1)}"
            found = f"{examples} here ({here}), {before.n:,} in the baseline ({there})"
        raise NothingComparable(f"{key}: different data: {found}", where="--baseline", fix=_ANOTHER)
    for name in sorted({*before.settings, *after.settings}, key=lambda name: (name != WINDOW, name)):
        old, new = (result.settings.get(name, 1 if name == VERSION else None) for result in (before, after))
        if old != new:
            message = f"{key}: {name} is {new!r:.60} here but {old!r:.60} in the baseline"
            fix = "compare perplexity only between models of one context length" if name == WINDOW else _ANOTHER
            raise NothingComparable(message, where="--baseline", fix=fix)
    if before.items is None:
        message = f"{key}: the baseline has no items, but paired tests need them"
        raise NothingComparable(message, where="--baseline", fix="pass the file that --output wrote")
