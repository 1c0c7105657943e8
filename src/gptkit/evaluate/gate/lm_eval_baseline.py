"""Reads what lm-eval wrote with --log_samples as a baseline: results_*.json and the samples_*.jsonl beside it.

An item is the same if its document is; what was asked about it must be the same text too, for two harnesses that call
a task alike may score other words. What lm-eval does not tell (hashes) is taken from the present run where the texts
prove it; its tokenizer stays unknown, so that nothing that counts tokens is compared.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gptkit.errors import InputError, NothingComparable
from gptkit.evaluate.gate.baseline import checked_column, read_text
from gptkit.evaluate.gate.lm_eval_tasks import Asked, Task, task_of
from gptkit.evaluate.results import SCHEMA, EvaluatedRun, Scored
from gptkit.scoring.protocols import Items
from gptkit.system.json_files import json_object
from gptkit.system.reading import translate_read_errors
from gptkit.text.examples import Example

_FIX = "name the folder or results_*.json that lm-eval wrote with --log_samples"


class Matched(NamedTuple):
    """Both runs over the same items; the present one's are joined where lm-eval has fewer and longer ones."""

    baseline: EvaluatedRun
    present: EvaluatedRun


class _Sample(NamedTuple):
    where: str
    asked: Asked
    values: Mapping[str, float]


def is_lm_eval(path: Path) -> bool:
    """Say whether a baseline is lm-eval's: a folder, or a file of results that is not one of our own."""
    if path.is_dir():
        return True
    text = read_text(path, f"--baseline {path}")
    return f'"{SCHEMA}"' not in text and any(f'"{key}"' in text for key in ("lm_eval_version", "n-shot"))


def read_lm_eval(path: Path, present: EvaluatedRun, examples: Mapping[str, Sequence[Example]]) -> Matched:
    """Return lm-eval's scores of those protocols of the present run that it has; `examples` are ours by task.

    InputError for files that are not lm-eval's; NothingComparable for other data, or texts asked otherwise.
    """
    results = _results_file(path)
    where = f"--baseline {results}"
    root = _root(results, where)
    before: dict[str, Scored] = {}
    after: dict[str, Scored] = dict(present.scores)
    for key, one in present.scores.items():
        found = task_of(key)
        names = [] if found is None else [name for name in root["results"] if re.fullmatch(found[1], name, re.I)]
        if found is None or not names:
            continue
        samples = [sample for name in sorted(names) for sample in _samples(results, name, found[0])]
        window = root.get("max_length")
        before[key], after[key] = _matched(key, found[0], samples, one, examples[key.split("/")[0]], window)
    model = root.get("model_name")
    baseline = EvaluatedRun(model if isinstance(model, str) else "", None, None, before, partial=True)
    return Matched(baseline, replace(present, scores=after))


def _results_file(path: Path) -> Path:
    """Return the newest results of a folder, or of the folder of one model inside it; a file stands for itself."""
    if not path.is_dir():
        return path
    with translate_read_errors(path):
        found = [*path.glob("results_*.json"), *path.glob("*/results_*.json")]
    if not found:
        raise InputError("no results_*.json", where=f"--baseline {path}", fix=_FIX)
    return max(found, key=lambda one: one.name)


def _root(path: Path, where: str) -> dict[str, Any]:
    try:
        root = json.loads(read_text(path, where))  # lm-eval writes NaN where it has no standard error
    except (ValueError, RecursionError):
        raise InputError("not valid JSON", where=where, fix=_FIX) from None
    if not isinstance(root, dict) or not isinstance(root.get("results"), dict):
        raise InputError("no results in it", where=where, fix=_FIX)
    return root


def _samples(results: Path, name: str, task: Task) -> Iterator[tuple[str, _Sample]]:
    """Yield the document and the sample of every line of the newest file of a task."""
    safe = re.sub(r"\W", "_", name)
    pattern = re.compile(rf"samples_(?:{re.escape(name)}|{safe})_\d{{4}}-.*\.jsonl")
    with translate_read_errors(results.parent):
        files = [one for one in results.parent.iterdir() if pattern.fullmatch(one.name)]
    if not files:
        message = f"lm-eval left no samples of {name}, and paired tests need them"
        raise NothingComparable(message, where=f"--baseline {results.parent}", fix="run lm-eval with --log_samples")
    path = max(files, key=lambda one: one.name)
    for number, line in enumerate(read_text(path, f"--baseline {path}").split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            row = json_object(line, where, _FIX)
            if row.get("filter", "none") == "none":
                yield _sample(row, where, task)


def _sample(row: Mapping[str, Any], where: str, task: Task) -> tuple[str, _Sample]:
    try:
        asked = tuple(str(text) for one in row["arguments"].values() for text in one.values())
        values = {name: read(row) for name, read in task.columns.items()}
        return task.doc(row["doc"]), _Sample(where, asked, values)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"no sample of lm-eval's: {error!r:.80}", where=where, fix=_FIX) from None


def _matched(
    key: str,
    task: Task,
    samples: Sequence[tuple[str, _Sample]],
    present: Scored,
    examples: Sequence[Example],
    window: object,
) -> tuple[Scored, Scored]:
    """Return both sides of a protocol, over lm-eval's documents in the order of our examples."""
    waiting: dict[str, list[_Sample]] = defaultdict(list)
    for doc, sample in samples:
        waiting[doc].append(sample)
    groups = _documents(examples) if task.by_document else [[place] for place in range(len(examples))]
    chosen: list[_Sample] = []
    for places in groups:
        members = [examples[place] for place in places]
        of_doc = waiting.get(task.examples(members))
        if not of_doc:
            message = f"{key}: lm-eval has other data: not {members[0].where}"
            raise NothingComparable(message, where="--baseline", fix="give both the same files and the same limit")
        sample = of_doc.pop(0)
        _require_same_texts(key, task.asked(members), sample)
        chosen.append(sample)
    if left := sum(map(len, waiting.values())):
        message = f"{key}: lm-eval has {left} items more"
        raise NothingComparable(message, where="--baseline", fix="give both the same files and the same limit")
    assert present.items is not None
    after = _joined(present.items, groups) if task.by_document else present.items
    columns = {
        name: checked_column(name, [sample.values[name] for sample in chosen], chosen[0].where) for name in task.columns
    }
    settings = {**present.settings, **({"window": window} if "window" in present.settings else {})}
    before = replace(present, n=len(chosen), settings=settings, metrics={}, groups={}, items=Items(after.ids, columns))
    return before, replace(present, n=len(chosen), items=after)


def _require_same_texts(key: str, ours: Asked, sample: _Sample) -> None:
    for our, their in zip(ours, sample.asked, strict=False):
        if our != their:
            message = f"{key}: lm-eval scored {their[:40]!r} where gptkit scores {our[:40]!r}"
            raise NothingComparable(message, where=sample.where, fix="compare runs of gptkit, or mend lm-eval's task")
    if len(ours) != len(sample.asked):
        message = f"{key}: lm-eval scored {len(sample.asked)} texts where gptkit scores {len(ours)}"
        raise NothingComparable(message, where=sample.where, fix="compare runs of gptkit, or mend lm-eval's task")


def _documents(examples: Sequence[Example]) -> list[list[int]]:
    """Return the places of each document's passages; a passage is named "document:passage"."""
    documents: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(examples):
        documents[one.identifier.rpartition(":")[0]].append(place)
    return list(documents.values())


def _joined(items: Items, groups: Sequence[Sequence[int]]) -> Items:
    """Return items whose columns are the sums over those of each group."""
    ids = tuple(items.ids[places[0]] for places in groups)
    columns = {
        name: np.array([column[list(places)].sum() for places in groups]) for name, column in items.columns.items()
    }
    return Items(ids, columns)
