"""How much of what a model is evaluated on stands in a training corpus, and its scores without that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptkit.console import Console
from gptkit.evaluate.contamination import Overlap, corpus_pieces, overlap, texts_of
from gptkit.evaluate.jobs import Job
from gptkit.evaluate.results import Scored
from gptkit.evaluate.tables import shown
from gptkit.scoring.measures import measure
from gptkit.scoring.protocols import Items
from gptkit.tasks.table import find_evaluation

COLUMNS = ("task", "8-grams", "in the corpus", "items with any", "GPT-2 paper: WebText", "the set's own training data")


def overlaps_with(corpus: str, jobs: Sequence[Job], console: Console) -> Mapping[str, Overlap]:
    """Return what of each task stands in the corpus; InputError for one that cannot be read."""
    console.say(f"looking for the examples' 8-grams in {corpus}")
    sets = {job.name: [_texts(job, one) for one in job.examples.examples] for job in jobs}
    return overlap(corpus_pieces([corpus]), sets)


def overlap_result(
    found: Mapping[str, Overlap], jobs: Sequence[Job], scores: Mapping[str, Scored], console: Console
) -> dict[str, Any]:
    """Show the overlap of each task with the corpus, and each score without overlapping items; return both."""
    console.table("8-gram overlap with the corpus", COLUMNS, [_row(name, one) for name, one in found.items()])
    without = {key: clean for job in jobs for key, clean in _clean_scores(job, found[job.name], scores).items()}
    if without:
        rows = [
            (
                key,
                name,
                shown(name, scores[key].metrics[name]["value"]),
                shown(name, figures["value"]),
                f"{clean['n']:,}",
            )
            for key, clean in without.items()
            for name, figures in clean["metrics"].items()
        ]
        console.table("without overlapping items", ("task", "measure", "all items", "without", "n"), rows)
    return {
        name: {
            "ngrams": one.ngrams,
            "found": one.found,
            "share": one.share,
            "items_with_overlap": one.items_with_overlap,
        }
        | {"without_overlap": {key: clean for key, clean in without.items() if key.split("/")[0] == name}}
        for name, one in found.items()
    }


def _texts(job: Job, example: Any) -> Sequence[str]:
    own = job.evaluation.texts if job.evaluation is not None else None
    return (own or texts_of)(example)


def _row(name: str, one: Overlap) -> tuple[str, ...]:
    row = find_evaluation(name)
    published = [f"{share:.2%}" for share in reversed(row.overlap)] if row and row.overlap else ["n/a", "n/a"]
    return name, f"{one.ngrams:,}", f"{one.share:.2%}", f"{one.items_with_overlap:,}", *published


def _clean_scores(job: Job, found: Overlap, scores: Mapping[str, Scored]) -> dict[str, dict[str, Any]]:
    """Return the gated measures of the items without overlap, where items are examples and some of both kinds exist."""
    kept = np.flatnonzero(~found.items)
    if len(kept) in (0, len(found.items)):
        return {}
    clean = {}
    for protocol in job.protocols:
        items = scores[f"{job.name}/{protocol.name}"].items
        if items is not None and len(items.ids) == len(found.items):
            columns = {name: column[kept] for name, column in items.columns.items()}
            part = Items(tuple(items.ids[index] for index in kept), columns)
            metrics = measure(protocol.measures[: protocol.gated], part)
            clean[f"{job.name}/{protocol.name}"] = {"n": len(kept), "metrics": metrics}
    return clean
