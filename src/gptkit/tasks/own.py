"""A user's own task, described in YAML:

    name: reviews                        # default: the file's name
    format: classification               # classification, entailment, similarity or multiple-choice
    labels: [negative, positive]         # or, for scores, score_range: [0, 5]
    metrics: [accuracy, f1]              # the first selects the best epoch; default: accuracy, or pearson, spearman
    splits:                              # default: train.*, dev.* and test.* in .jsonl, .csv, .tsv or .parquet
      train: reviews-train.csv
      dev: reviews-dev.csv             # or a fraction of train, such as 0.15
    columns:                             # default: named after the format's fields, and label
      text: review
      label: stars
    hub: NAME:CONFIG                     # optional: the data set that --data hf: stands for
    data: where it comes from            # optional

Without --data, the files are expected beside the YAML file. A multiple-choice task has no labels (a label is the index
of a choice), but may give its number of `choices`; its `columns` may be lists, such as `choices: [ending1, ending2]`.
`target: soft-score` trains scores from 0 to 5 as a distribution over 0 to 5. Nothing in the file is executed.

A model fine-tuned on such a task carries it as task.yaml, in the same format, which --task accepts too. Built-in tasks
need no file: config.json names them.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any, cast

from gptkit.errors import InputError, UsageError, suggest
from gptkit.system.files import is_plain_name
from gptkit.system.reading import Entry, read_yaml
from gptkit.system.run_layout import described_in
from gptkit.system.writing import yaml_text
from gptkit.tasks.task import FORMAT_FIELDS, KINDS, SPLITS, Column, Columns, Format, HubSource, Source, Target, Task
from gptkit.text.examples import Example

Entries = Mapping[str, Entry]
Range = tuple[float, float]

KEYS = ("name", "format", "labels", "score_range", "target", "metrics", "choices", "splits", "columns", "hub", "data")
CLASS_METRICS = ("accuracy", "f1", "matthews")
SCORE_METRICS = ("pearson", "spearman")
NO_FILE = "pass a YAML file, or one of the built-in tasks that gptkit tasks lists"
TASK_FILE = "task.yaml"
_FRACTION = re.compile(r"0?\.\d+", re.ASCII)
_HEADER = "# The task that this model was fine-tuned on; gptkit eval reads it.\n"
_COPY_AGAIN = "copy the model again, or remove the file and pass --task FILE.yaml"


@dataclass(frozen=True)
class Part:
    """Select a split's examples from a file that it shares: those whose texts have a hash from `low` to below `high`.

    So equal texts are in the same split, and rows added to the file move none of the others. `written` is the fraction
    as the YAML has it, "" for the remainder.
    """

    low: float
    high: float
    written: str = ""

    def __call__(self, path: Path, examples: Sequence[Example]) -> list[Example]:
        digests = (hashlib.sha256(repr(example.fields).encode()).digest() for example in examples)
        places = [int.from_bytes(digest[:6]) / 2**48 for digest in digests]
        chosen = [example for example, place in zip(examples, places, strict=True) if self.low <= place < self.high]
        if not chosen:
            message = f"none of {len(examples)} row(s) falls into a split of {self.written or 'the remainder'}"
            raise InputError(message, where=str(path), fix="write a larger fraction, or name a file")
        return chosen


def is_task_file(name: str) -> bool:
    """Return whether a --task is the file of a user's own task."""
    return name.lower().endswith((".yaml", ".yml"))


def read_task(path: Path, *, taken: Collection[str] = (), fix: str = NO_FILE) -> Task:
    """Return the task that a YAML file describes; UsageError with file:line for any fault in it.

    Its name must not be in `taken`; `fix` is the fix for a file that cannot be read at all.
    """
    root = read_yaml(path, "the task", missing=fix)
    entries = root.entries("the task", KEYS)
    format = cast(Format, _choice(entries, "format", tuple(FORMAT_FIELDS), root))
    labels = entries["labels"].words("labels") if "labels" in entries else ()
    score_range = _score_range(entries)
    target = _target(format, labels, score_range, entries, root)
    columns = _columns(format, entries.get("columns"))
    name = _word(entries, "name", path.stem)
    at = entries.get("name", root).where
    if not is_plain_name(name):
        fix = "use letters and digits of any script, dots, dashes and underscores (name: ...)"
        raise UsageError(f"{name[:60]!r} is not a valid name for a task", where=at, fix=fix)
    if name in taken:
        raise UsageError(f"{name!r} is a built-in task", where=at, fix="choose another name")
    return Task(
        name,
        format,
        _word(entries, "data", path.name),
        _splits(columns, entries.get("splits")),
        labels,
        _metrics(target, labels, entries),
        _count(entries["choices"]) if "choices" in entries else None,
        (0.0, 5.0) if target == "soft-score" else score_range,
        soft_scores=target == "soft-score",
        hub=_hub(entries.get("hub"), columns),
        is_own=True,
        folder=path.resolve().parent,
    )


def _word(entries: Entries, key: str, default: str) -> str:
    return entries[key].word(key) if key in entries else default


def _choice(entries: Entries, key: str, known: Sequence[str], root: Entry) -> str:
    if key not in entries:
        raise UsageError(f"no {key!r} in the task", where=root.where, fix=f"write {key}: {' or '.join(known)}")
    word = entries[key].word(key)
    if word not in known:
        raise UsageError(f"unknown {key} {word[:60]!r}", where=entries[key].where, fix=suggest(word[:60], known))
    return word


def _score_range(entries: Entries) -> Range | None:
    if "score_range" not in entries:
        return None
    entry = entries["score_range"]
    try:
        low, high = map(float, entry.words("score_range"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError("score_range is not a lower and an upper bound", where=entry.where, fix="write [0, 5]")
    return low, high


def _target(format: Format, labels: tuple[str, ...], scores: Range | None, entries: Entries, root: Entry) -> Target:
    choice = format == "multiple-choice"
    fits: tuple[Target, ...] = ("choice",) if choice else ("class",) if labels else ("score", "soft-score")
    target = cast(Target, _choice(entries, "target", fits, root)) if "target" in entries else fits[0]
    if choice and (labels or scores):
        key = "labels" if labels else "score_range"
        fix = "leave it out: the label is the index of a choice"
        raise UsageError(f"a multiple-choice task has no {key}", where=entries[key].where, fix=fix)
    if target == "class" and (scores or len(labels) < 2):
        key = "score_range" if scores else "labels"
        fix = "list two or more labels, or set a score_range"
        raise UsageError("classes need two or more labels and no score_range", where=entries[key].where, fix=fix)
    if target == "score" and scores is None:
        fix = "for classes write labels: [no, yes]; for scores score_range: [0, 5]"
        raise UsageError("neither labels nor a score_range", where=root.where, fix=fix)
    if target == "soft-score" and scores not in (None, (0.0, 5.0)):
        raise UsageError("soft scores range from 0 to 5", where=entries["score_range"].where, fix="write [0, 5]")
    return target


def _metrics(target: Target, labels: tuple[str, ...], entries: Entries) -> tuple[str, ...]:
    fits = SCORE_METRICS if "score" in target else ("accuracy",) if target == "choice" else CLASS_METRICS
    known = [name for name in fits if name != "f1" or len(labels) == 2]
    if "metrics" not in entries:
        return SCORE_METRICS if "score" in target else ("accuracy",)
    for name in (names := entries["metrics"].words("metrics")):
        if name not in known:
            fix = "f1 is that of the second of two labels; " * (name == "f1") + f"choose from {', '.join(known)}"
            raise UsageError(f"unsuitable metric {name[:60]!r}", where=entries["metrics"].where, fix=fix)
    return names


def _columns(format: Format, entry: Entry | None) -> Columns | None:
    if entry is None:
        return None
    fields = FORMAT_FIELDS[format]
    entries = entry.entries("columns", (*fields, "label", "index"))
    for name in fields:
        if name not in entries and name != "question":
            raise UsageError(f"no column for {name!r}", where=entry.where, fix=f"write {name}: COLUMN")

    def column(name: str) -> Column | tuple[Column, ...]:
        if name not in entries:
            return ()
        return entries[name].words(name) if entries[name].is_list() else entries[name].word(name)

    label = _word(entries, "label", "label")
    index = _word(entries, "index", "") or None
    return Columns(tuple(column(name) for name in fields), label, identifier=index)


def _splits(columns: Columns | None, entry: Entry | None) -> dict[str, tuple[Source, ...]]:
    if entry is None:
        return {split: tuple(Source((f"{split}.{kind}",), kind, columns) for kind in KINDS) for split in SPLITS}
    splits: dict[str, tuple[Source, ...]] = {}
    entries, parts, low = entry.entries("splits", ()), dict[str, Part](), 0.0
    words = {split: value.word("a split's file") for split, value in entries.items()}
    for split in [split for split, word in words.items() if _FRACTION.fullmatch(word) and "train" in words]:
        parts[split] = Part(low, low + float(words[split]), words[split])
        low, words[split] = parts[split].high, words["train"]
    if parts:
        parts["train"] = Part(low, 1.0)
    for split, value in entries.items():
        file = words[split]
        kinds = [kind for kind in KINDS if file.lower().endswith(f".{kind}")]
        if not kinds:
            fix = f"use one of {', '.join(f'.{kind}' for kind in KINDS)} (of a JSON array: jq -c '.[]' FILE)"
            fix += ", or for dev and test a fraction of train, such as 0.15"
            raise UsageError(f"unsupported file type: {file[:60]!r}", where=value.where, fix=fix)
        if not is_plain_name(split):
            raise UsageError(f"{split[:60]!r} cannot name a split", where=value.where, fix="write train, dev or test")
        splits[split] = (Source((file,), kinds[0], columns, select=parts.get(split)),)
    if low >= 1:
        raise UsageError("the fractions leave nothing to train on", where=entry.where, fix="write dev: 0.15")
    if not splits:
        raise UsageError("splits is empty", where=entry.where, fix="write train: FILE and dev: FILE")
    return splits


def _count(entry: Entry) -> int:
    word = entry.word("choices")
    if not (word.isascii() and word.isdigit() and len(word) < 4 and int(word) >= 2):
        raise UsageError("choices is not a number of at least 2", where=entry.where, fix="write choices: 4")
    return int(word)


def _hub(entry: Entry | None, columns: Columns | None) -> HubSource | None:
    if entry is None:
        return None
    name, _, configuration = entry.word("hub").removeprefix("hf:").partition(":")
    if not name:
        raise UsageError("hub names no data set", where=entry.where, fix="write hub: NAME or NAME:CONFIG")
    return HubSource(name, configuration or None, columns)


def write_task(directory: Path, task: Task) -> None:
    """Write task.yaml into a model's directory if the task is a user's own; a built-in one needs none."""
    if task.is_own:
        (directory / TASK_FILE).write_text(task_text(task), encoding="utf-8")


def carried_task(directory: Path) -> Task | None:
    """Return the task described in a model's directory, None if there is none; UsageError or InputError for a bad file.

    The file may come from a stranger, so it may only name files inside the folder of --data. Its name may be that of a
    built-in task, which gptkit may have gained since it was written.
    """
    path = described_in(directory) / TASK_FILE
    if not path.exists() and not path.is_symlink():
        return None
    task = read_task(path, fix=_COPY_AGAIN)
    for file in (file for sources in task.splits.values() for source in sources for file in source.paths):
        if file != _inside(file):
            message = f"the task's file {file[:60]!r} is not inside the folder of --data"
            raise InputError(message, where=str(path), fix=f"write {_inside(file)[:60]!r}")
    return replace(task, folder=None)


def task_text(task: Task) -> str:
    """Return the YAML of a user's own task; of paths that lead out of its folder, only the file names are kept."""
    named = next((source.columns for sources in task.splits.values() for source in sources), None)
    columns: dict[str, Any] = {}
    if named is not None:
        keys = (*FORMAT_FIELDS[task.format], "label", "index")
        found = zip(keys, (*named.fields, named.label, named.identifier), strict=True)
        columns = {key: list(column) if isinstance(column, tuple) else column for key, column in found if column}
    # Default splits, which have a source for each kind of file, are left out.
    is_listed = all(len(sources) == 1 for sources in task.splits.values())
    values: dict[str, Any] = {
        "name": task.name,
        "format": task.format,
        "labels": list(task.labels),
        "score_range": list(task.score_range or ()),
        "target": task.target,
        "metrics": list(task.metrics),
        "choices": task.choices,
        "splits": {
            split: getattr(sources[0].select, "written", "") or _inside(sources[0].paths[0])
            for split, sources in task.splits.items()
            if is_listed
        },
        "columns": columns,
        "hub": task.hub and task.hub.name.removeprefix("hf:"),
        "data": task.data,
    }
    given = {key: value for key, value in values.items() if value}
    return _HEADER + yaml_text(given, default_flow_style=None)


def _inside(file: str) -> str:
    """Return the path if it stays inside its folder, else only the file's name."""
    path = PureWindowsPath(file)  # splits at both kinds of slashes
    return path.name if path.anchor or ".." in path.parts else file
