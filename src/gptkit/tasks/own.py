"""A user's own task, written down in YAML:

    name: reviews                        # left out: the file's name
    format: classification               # classification, entailment, similarity or multiple-choice
    labels: [negative, positive]         # or, where the labels are scores, score_range: [0, 5]
    metrics: [accuracy, f1]              # the first one chooses the best epoch; left out: accuracy, or pearson
    splits:                              # left out: train.*, dev.* and test.* of .jsonl, .csv, .tsv or .parquet
      train: reviews-train.csv
      dev: reviews-dev.csv
    columns:                             # left out: named like the format's fields, and label
      text: review
      label: stars
    hub: NAME:CONFIG                     # what --data hf: means; may be left out
    data: where it comes from            # may be left out

Without --data the files lie beside the YAML file. A multiple-choice task has no labels (a label is the index of a
choice) but may say how many `choices` there are; its `columns` may list several, `choices: [ending1, ending2]`.
`target: soft-score` trains scores from 0 to 5 as a distribution over 0 to 5. Nothing in the file is executed.

A fine-tuned model carries its user's task as task.yaml, which says the same and so can be given to --task like one. A
task of gptkit's own needs no file: config.json has its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any, cast

from gptkit.errors import InputError, UsageError, suggest
from gptkit.recipes import SAFE_NAME
from gptkit.system.reading import Entry, read_yaml
from gptkit.system.run_layout import described_in
from gptkit.tasks.task import FORMAT_FIELDS, KINDS, Column, Columns, Format, HubSource, Source, Target, Task

Entries = Mapping[str, Entry]
Range = tuple[float, float]

KEYS = (
    *("name", "format", "labels", "score_range", "target", "metrics"),
    *("choices", "splits", "columns", "hub", "data"),
)
CLASS_METRICS = ("accuracy", "f1", "matthews")
SCORE_METRICS = ("pearson", "spearman")
NO_FILE = "name a YAML file (gptkit tasks lists the tasks that need none)"
TASK_FILE = "task.yaml"
YAML_BREAKS = re.compile("[\x85\u2028\u2029]")
_HEADER = "# The task that this model was fine-tuned on; gptkit eval reads it.\n"
_COPY_AGAIN = "copy the model again, or remove the file and name the task: --task FILE.yaml"


def is_task_file(name: str) -> bool:
    """Return whether --task names a user's own task."""
    return name.lower().endswith((".yaml", ".yml"))


def read_task(path: Path, *, taken: Collection[str] = (), fix: str = NO_FILE) -> Task:
    """Return the task that a YAML file describes; UsageError with file:line for whatever is wrong in it.

    Its name may not be one of `taken`; `fix` is the cure where the file as a whole cannot be read.
    """
    root = read_yaml(path, "a task", missing=fix)
    entries = root.entries("a task", KEYS)
    format = cast(Format, _choice(entries, "format", tuple(FORMAT_FIELDS), root))
    labels = entries["labels"].words("labels") if "labels" in entries else ()
    score_range = _score_range(entries)
    target = _target(format, labels, score_range, entries, root)
    columns = _columns(format, entries.get("columns"))
    name = _word(entries, "name", path.stem)
    at = entries.get("name", root).where
    if not SAFE_NAME.fullmatch(name):
        fix = "use letters, digits, dots, dashes and underscores (name: ...)"
        raise UsageError(f"{name[:60]!r} cannot name a task", where=at, fix=fix)
    if name in taken:
        raise UsageError(f"{name!r} is a task of gptkit's own", where=at, fix="choose another name")
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
        raise UsageError("score_range is not a lower and an upper number", where=entry.where, fix="write [0, 5]")
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
        fix = "give two labels or more, or a score_range: not both"
        raise UsageError("classes need labels alone, two or more", where=entries[key].where, fix=fix)
    if target == "score" and scores is None:
        raise UsageError("neither labels nor a score_range", where=root.where, fix="write labels: [no, yes]")
    if target == "soft-score" and scores not in (None, (0.0, 5.0)):
        raise UsageError("soft scores go from 0 to 5", where=entries["score_range"].where, fix="write [0, 5]")
    return target


def _metrics(target: Target, labels: tuple[str, ...], entries: Entries) -> tuple[str, ...]:
    fits = SCORE_METRICS if "score" in target else ("accuracy",) if target == "choice" else CLASS_METRICS
    known = [name for name in fits if name != "f1" or len(labels) == 2]
    if "metrics" not in entries:
        return SCORE_METRICS if "score" in target else ("accuracy",)
    for name in (names := entries["metrics"].words("metrics")):
        if name not in known:
            fix = f"this task can have {', '.join(known)}"
            raise UsageError(f"the metric {name[:60]!r} does not fit", where=entries["metrics"].where, fix=fix)
    return names


def _columns(format: Format, entry: Entry | None) -> Columns | None:
    if entry is None:
        return None
    fields = FORMAT_FIELDS[format]
    entries = entry.entries("columns", (*fields, "label", "index"))
    for name in fields:
        if name not in entries and name != "question":
            raise UsageError(f"columns names none for {name!r}", where=entry.where, fix=f"write {name}: COLUMN")

    def column(name: str) -> Column | tuple[Column, ...]:
        if name not in entries:
            return ()
        return entries[name].words(name) if entries[name].is_list() else entries[name].word(name)

    label = _word(entries, "label", "label")
    index = _word(entries, "index", "") or None
    return Columns(tuple(column(name) for name in fields), label, identifier=index)


def _splits(columns: Columns | None, entry: Entry | None) -> dict[str, tuple[Source, ...]]:
    if entry is None:
        return {
            split: tuple(Source((f"{split}.{kind}",), kind, columns) for kind in KINDS)
            for split in ("train", "dev", "test")
        }
    splits: dict[str, tuple[Source, ...]] = {}
    for split, value in entry.entries("splits", ()).items():
        file = value.word("a split's file")
        kinds = [kind for kind in KINDS if file.lower().endswith(f".{kind}")]
        if not kinds:
            fix = f"name a file in {', '.join(f'.{kind}' for kind in KINDS)}"
            raise UsageError(f"{file[:60]!r} is not a kind of file that is read", where=value.where, fix=fix)
        if not SAFE_NAME.fullmatch(split):
            raise UsageError(f"{split[:60]!r} cannot name a split", where=value.where, fix="write train, dev or test")
        splits[split] = (Source((file,), kinds[0], columns),)
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
        raise UsageError("no data set named", where=entry.where, fix="write hub: NAME or NAME:CONFIG")
    return HubSource(name, configuration or None, columns)


def write_task(directory: Path, task: Task) -> None:
    """Write a user's own task into a model's directory; a task of gptkit's own writes nothing."""
    if task.is_own:
        (directory / TASK_FILE).write_text(task_text(task), encoding="utf-8")


def carried_task(directory: Path) -> Task | None:
    """Return the task that a model's directory carries, None without a file; UsageError or InputError for a bad one.

    The file may be a stranger's: it names files inside the folder of --data and nowhere else. It may use a name that
    gptkit has given to a task of its own since it was written.
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
    """Return the YAML that describes a user's own task; files elsewhere than in its folder keep their names alone."""
    import yaml

    named = next((source.columns for sources in task.splits.values() for source in sources), None)
    columns: dict[str, Any] = {}
    if named is not None:
        keys = (*FORMAT_FIELDS[task.format], "label", "index")
        found = zip(keys, (*named.fields, named.label, named.identifier), strict=True)
        columns = {key: list(column) if isinstance(column, tuple) else column for key, column in found if column}
    # Left out where the user's file left them out, and several kinds may do.
    is_listed = all(len(sources) == 1 for sources in task.splits.values())
    values: dict[str, Any] = {
        "name": task.name,
        "format": task.format,
        "labels": list(task.labels),
        "score_range": list(task.score_range or ()),
        "target": task.target,
        "metrics": list(task.metrics),
        "choices": task.choices,
        "splits": {split: _inside(sources[0].paths[0]) for split, sources in task.splits.items() if is_listed},
        "columns": columns,
        "hub": task.hub and task.hub.name.removeprefix("hf:"),
        "data": task.data,
    }
    given = {key: value for key, value in values.items() if value}
    text: str = yaml.safe_dump(given, sort_keys=False, allow_unicode=True, default_flow_style=None)
    if YAML_BREAKS.search(text):  # PyYAML would read them as spaces, unless they are escaped
        text = yaml.safe_dump(given, sort_keys=False, default_flow_style=None)
    return _HEADER + text


def _inside(file: str) -> str:
    """Return the path where it stays inside the folder it is relative to, else the file's name."""
    path = PureWindowsPath(file)  # which splits at both kinds of slashes
    return path.name if path.anchor or ".." in path.parts else file
