"""The scores of an evaluation for people: the usual protocol in full, the others by their first measure."""

from __future__ import annotations

import re
import shutil
import string
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.console import Console
from gptkit.evaluate.jobs import Job
from gptkit.evaluate.results import EvalResults, ProtocolResult
from gptkit.report.text import known_columns
from gptkit.scoring.measures import MEASURES, Measure
from gptkit.scoring.protocols import Protocol
from gptkit.scoring.running_text import TextProtocol
from gptkit.tasks.heads import MOST_FREQUENT, HeadProtocol, chance_of

SHOWN_PARTS = 20  # breakdowns into more parts are only in the JSON
_CLAUSES = re.compile(r"; (?![^(]*\))")  # of a protocol's description
CALIBRATED = "calibration error: how far confidence is from accuracy; top N%: the N% of items with most confidence"
UNLEARNED = "chance: all tokens equally likely; for bits, the entropy of the text's own byte or character frequencies"


def show_scores(run: EvalResults, jobs: Sequence[Job], console: Console, vocab_size: int) -> None:
    """Print the tables of each task, and how each protocol computes its numbers."""
    for job in jobs:
        usual, others = job.usual, [protocol for protocol in job.protocols if protocol is not job.usual]
        result = run.results[f"{job.name}/{usual.name}"]
        n = len(job.examples.examples)
        items = "" if result.n == n else f", {result.n:,} items"
        noun = "passage" if isinstance(usual, TextProtocol) else "example"
        console.result(f"{job.name}: {n:,} {noun}{'s' * (n != 1)}{items}, data {job.examples.sha256[:12]}")
        _write(f"{usual.name}{', the usual protocol' if others else ''}: {usual.about}", console)
        _show_measures(usual, result, job, console, vocab_size)
        _show_parts(usual, result, console)
        if others:
            console.result("")
            _show_others(others, run, job, console)
        console.result("")


def _show_measures(protocol: Protocol, result: ProtocolResult, job: Job, console: Console, vocab_size: int) -> None:
    """Print all measures of a protocol, then why some are undefined, and what is published."""
    chance, note = _chance(protocol, result, job, vocab_size)
    rows, undefined = [], dict[str, list[str]]()
    for name, figures in result.metrics.items():
        measure = MEASURES[name]
        better = "higher" if measure.higher_is_better else "lower"
        shown_chance = measure.shown(chance[name]) if name in chance else ""
        rows.append((measure.label, *_shown(measure, figures), better, shown_chance))
        if reason := figures.get("reason"):
            undefined.setdefault(reason, []).append(measure.label)
    console.table("", *known_columns(("measure", "value", "std. error", "better", "chance"), rows))
    reasons = [f"{', '.join(labels)}: n/a, as {reason}" for reason, labels in undefined.items()]
    calibrated = CALIBRATED if "calibration_error" in result.metrics else ""
    for line in [*filter(None, [note, calibrated]), *reasons, *_published(protocol, protocol.measures)]:
        _write(line, console)


def _show_parts(protocol: Protocol, result: ProtocolResult, console: Console) -> None:
    """Print the first measure of each part of the items."""
    measure = MEASURES[protocol.measures[0]]
    for group, parts in result.groups.items():
        rows = []
        for part, entry in parts.items():
            rows.append((part, *_shown(measure, entry["metrics"][measure.name]), f"{entry['n']:,}"))
        if len(parts) <= SHOWN_PARTS:
            console.table("", *known_columns((group, measure.label, "std. error", "n"), rows))


def _show_others(others: Sequence[Protocol], run: EvalResults, job: Job, console: Console) -> None:
    """Print the first measure of the other protocols that is defined, and once each what they do differently."""
    usual, letters = _CLAUSES.split(job.usual.about), dict[str, str]()
    rows: list[tuple[str, ...]] = []
    for protocol in others:
        own = [clause for clause in _CLAUSES.split(protocol.about) if clause not in usual]
        for clause in own:
            letters.setdefault(clause, string.ascii_letters[len(letters)])
        metrics = run.results[f"{job.name}/{protocol.name}"].metrics
        defined = (name for name, figures in metrics.items() if figures["value"] is not None)
        measure = MEASURES[next(defined, protocol.measures[0])]
        how = "".join(sorted(letters[clause] for clause in own))
        rows.append((protocol.name, measure.label, *_shown(measure, metrics[measure.name]), how))
    columns: tuple[str, ...] = ("other protocols", "measure", "value", "std. error", "how")
    if len({label for _, label, *_ in rows}) == 1:  # which then is the column's name
        columns = (columns[0], rows[0][1], *columns[3:])
        rows = [(name, *rest) for name, _, *rest in rows]
    console.table("", *known_columns(columns, rows))
    for clause, letter in letters.items():
        _write(f"{letter}: {clause}", console)
    for protocol in others:
        for line in _published(protocol, protocol.measures[:1]):
            _write(f"{protocol.name}, {line}", console)
    if any(len(protocol.measures) > 1 for protocol in others):
        _write("their other measures: --json or --output FILE", console)


def _shown(measure: Measure, figures: Mapping[str, Any]) -> tuple[str, str]:
    """Return a value and its standard error for people; an error of 0 says only that the items are alike."""
    return measure.shown(figures["value"]), measure.shown(figures["stderr"] or None)


def _chance(protocol: Protocol, result: ProtocolResult, job: Job, vocab_size: int) -> tuple[Mapping[str, float], str]:
    """Return what a model that knows nothing scores, by measure, and a remark on it."""
    if isinstance(protocol, TextProtocol):
        return {**protocol.entropies(job.examples.examples), "token_perplexity": vocab_size}, UNLEARNED
    if protocol.chance is not None:
        return {protocol.measures[0]: protocol.chance}, ""
    if not isinstance(protocol, HeadProtocol) or result.items is None:
        return {}, ""
    note = MOST_FREQUENT if protocol.task.target == "class" else ""
    return chance_of(protocol.task, job.examples.examples), note


def _published(protocol: Protocol, measures: Sequence[str]) -> list[str]:
    """Return a line on each of the measures that has published figures."""
    lines = []
    for name in measures:
        rows = [row for row in protocol.published if row.measure == name]
        shown = ", ".join(f"{row.model} {MEASURES[name].shown(row.value)}" for row in rows)
        if rows:
            sources = "; ".join(dict.fromkeys(row.source for row in rows))
            lines.append(f"published {MEASURES[name].label}: {shown} ({sources})")
    return lines


def _write(text: str, console: Console) -> None:
    width = shutil.get_terminal_size((100, 24)).columns
    console.result(textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))
