"""The tables of an evaluation: every protocol side by side, each with its n, its error and what is published of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gptkit.console import Console
from gptkit.evaluate.jobs import Job
from gptkit.evaluate.results import EvalResults, ProtocolResult
from gptkit.scoring.measures import MEASURES
from gptkit.scoring.protocols import Protocol

COLUMNS = ("protocol", "measure", "value", "std. error", "n", "published")
SHOWN_PARTS = 20  # of a breakdown on a screen; JSON has all


def show_scores(run: EvalResults, jobs: Sequence[Job], console: Console) -> None:
    """Print a table for each task, and how each of its numbers is computed."""
    for job in jobs:
        scores = [(protocol, run.results[f"{job.name}/{protocol.name}"]) for protocol in job.protocols]
        n, sha256 = len(job.examples.examples), job.examples.sha256
        title = f"{job.name}: {n:,} examples, data {sha256[:12]}"
        console.table(title, COLUMNS, [row for protocol, one in scores for row in _rows(protocol, one)])
        for protocol, one in scores:
            for group, parts in one.groups.items():
                if len(parts) <= SHOWN_PARTS:
                    console.table("", (f"{protocol.name} by {group}", *COLUMNS[2:5]), _parts(protocol, parts))
        for protocol, _ in scores:
            console.result(f"{protocol.name}: {protocol.about}")
        console.result("")


def _rows(protocol: Protocol, one: ProtocolResult) -> Iterator[tuple[str, ...]]:
    for name, figures in one.metrics.items():
        published = ", ".join(
            f"{each.model} {MEASURES[name].shown(each.value)}" for each in protocol.published if each.measure == name
        )
        value = MEASURES[name].shown(figures["value"])
        yield protocol.name, name.replace("_", " "), value, _error(name, figures), f"{one.n:,}", published


def _parts(protocol: Protocol, parts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    name = protocol.measures[0]
    rows: list[tuple[str, ...]] = []
    for part, entry in parts.items():
        figures = entry["metrics"][name]
        value = "n/a" if figures["value"] is None else MEASURES[name].shown(figures["value"])
        rows.append((part, value, _error(name, figures), f"{entry['n']:,}"))
    return rows


def _error(name: str, figures: Mapping[str, Any]) -> str:
    return "n/a" if figures["stderr"] is None else MEASURES[name].shown(figures["stderr"])
