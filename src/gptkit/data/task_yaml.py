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
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gptkit.data.formats import FORMAT_FIELDS
from gptkit.data.task import KINDS, Column, Columns, Format, HubSource, Source, Target, Task
from gptkit.errors import UsageError, suggest
from gptkit.recipe_files import SAFE_NAME

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 1_000_000
KEYS = (
    "name",
    "format",
    "labels",
    "score_range",
    "target",
    "metrics",
    "choices",
    "splits",
    "columns",
    "hub",
    "data",
)
CLASS_METRICS = ("accuracy", "f1", "matthews")
SCORE_METRICS = ("pearson", "spearman")
HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


class _Entry:
    """A value of the file: a word, a list of words, or a mapping of entries; `where` is file:line."""

    def __init__(self, node: yaml.Node, path: Path) -> None:
        self.node = node
        self.path = path
        self.where = f"{path}:{node.start_mark.line + 1}"

    def word(self, what: str) -> str:
        import yaml

        if not isinstance(self.node, yaml.ScalarNode) or not self.node.value.strip():
            raise UsageError(f"{what} is not one word or number", where=self.where, fix="write one value")
        if "\0" in self.node.value:
            raise UsageError(f"{what} contains a NUL character", where=self.where, fix="leave it out")
        return str(self.node.value)

    def words(self, what: str) -> tuple[str, ...]:
        import yaml

        if not isinstance(self.node, yaml.SequenceNode) or not self.node.value:
            raise UsageError(f"{what} is not a list", where=self.where, fix=f"write {what}: [one, another]")
        words = tuple(_Entry(one, self.path).word(what) for one in self.node.value)
        if len(set(words)) < len(words):
            raise UsageError(f"{what} holds one value twice", where=self.where, fix="keep one of them")
        return words

    def is_list(self) -> bool:
        import yaml

        return isinstance(self.node, yaml.SequenceNode)

    def entries(self, what: str, known: Sequence[str]) -> dict[str, _Entry]:
        """Return a mapping's entries; a key that is unknown or there twice is a UsageError."""
        import yaml

        if not isinstance(self.node, yaml.MappingNode):
            fix = "write `key: value` lines"
            raise UsageError(f"{what} has no `key: value` lines", where=self.where, fix=fix)
        found: dict[str, _Entry] = {}
        for key_node, value in self.node.value:
            key = _Entry(key_node, self.path)
            name = key.word("a key")
            if known and name not in known:
                raise UsageError(f"unknown key {name[:60]!r} in {what}", where=key.where, fix=suggest(name[:60], known))
            if name in found:
                raise UsageError(f"the key {name!r} is there twice", where=key.where, fix="keep one of them")
            found[name] = _Entry(value, self.path)
        return found


def read_task(path: Path) -> Task:
    """Return the task that a YAML file describes; UsageError with file:line for whatever is wrong in it."""
    root = _root(path)
    entries = root.entries("a task", KEYS)
    format = cast(Format, _choice(entries, "format", tuple(FORMAT_FIELDS), root))
    labels = entries["labels"].words("labels") if "labels" in entries else ()
    score_range = _score_range(entries)
    target = _target(format, labels, score_range, entries, root)
    columns = _columns(format, entries.get("columns"))
    name = entries["name"].word("name") if "name" in entries else path.stem
    _check_name(name, entries.get("name", root))
    return Task(
        name,
        format,
        labels,
        target,
        _metrics(target, labels, entries),
        _splits(columns, entries.get("splits")),
        entries["data"].word("data") if "data" in entries else str(path),
        score_range=(0.0, 5.0) if target == "soft-score" else score_range,
        choices=_count(entries["choices"]) if "choices" in entries else None,
        hub=_hub(entries.get("hub"), columns),
        folder=path.resolve().parent,
    )


def _root(path: Path) -> _Entry:
    import yaml

    where = str(path)
    fix = "name a YAML file (gptkit tasks lists the tasks that need none)"
    if not path.is_file():
        raise UsageError("a task is a file, this is none" if path.exists() else "no such file", where=where, fix=fix)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError("a task of over 1 MB", where=where, fix=fix)
        node = yaml.compose(path.read_bytes().decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UsageError(error.strerror or "unreadable", where=where, fix="make the file readable") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"byte {error.start} is not UTF-8", where=f"{path}:{line}", fix="save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}" if mark else where
        raise UsageError(f"not YAML: {error.problem}", where=where, fix="write `key: value` lines") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"not YAML: {error}", where=where, fix="write `key: value` lines") from None
    if node is None:
        raise UsageError("the file is empty", where=f"{path}:1", fix="write at least format: and labels:")
    return _Entry(node, path)


def _check_name(name: str, entry: _Entry) -> None:
    from gptkit.data.tasks import TASKS

    if not SAFE_NAME.fullmatch(name):
        fix = "use letters, digits, dots, dashes and underscores (name: ...)"
        raise UsageError(f"{name[:60]!r} cannot name a task", where=entry.where, fix=fix)
    if name in TASKS:
        raise UsageError(f"{name!r} is a task of gptkit's own", where=entry.where, fix="choose another name")


def _choice(entries: dict[str, _Entry], key: str, known: Sequence[str], root: _Entry) -> str:
    if key not in entries:
        raise UsageError(f"no {key!r} in the task", where=root.where, fix=f"write {key}: {' or '.join(known)}")
    word = entries[key].word(key)
    if word not in known:
        raise UsageError(f"unknown {key} {word[:60]!r}", where=entries[key].where, fix=suggest(word[:60], known))
    return word


def _score_range(entries: dict[str, _Entry]) -> tuple[float, float] | None:
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


def _target(
    format: Format,
    labels: tuple[str, ...],
    score_range: tuple[float, float] | None,
    entries: dict[str, _Entry],
    root: _Entry,
) -> Target:
    choice = format == "multiple-choice"
    fits: tuple[Target, ...] = ("choice",) if choice else ("class",) if labels else ("score", "soft-score")
    target = cast(Target, _choice(entries, "target", fits, root)) if "target" in entries else fits[0]
    if choice and (labels or score_range):
        key = "labels" if labels else "score_range"
        fix = "leave it out: the label is the index of a choice"
        raise UsageError(f"a multiple-choice task has no {key}", where=entries[key].where, fix=fix)
    if target == "class" and (score_range or len(labels) < 2):
        key = "score_range" if score_range else "labels"
        fix = "give two labels or more, or a score_range: not both"
        raise UsageError("classes need labels alone, two or more", where=entries[key].where, fix=fix)
    if target == "score" and score_range is None:
        raise UsageError("neither labels nor a score_range", where=root.where, fix="write labels: [no, yes]")
    if target == "soft-score" and score_range not in (None, (0.0, 5.0)):
        raise UsageError("soft scores go from 0 to 5", where=entries["score_range"].where, fix="write [0, 5]")
    return target


def _metrics(target: Target, labels: tuple[str, ...], entries: dict[str, _Entry]) -> tuple[str, ...]:
    fits = SCORE_METRICS if "score" in target else ("accuracy",) if target == "choice" else CLASS_METRICS
    known = [name for name in fits if name != "f1" or len(labels) == 2]
    if "metrics" not in entries:
        return SCORE_METRICS if "score" in target else ("accuracy",)
    for name in (names := entries["metrics"].words("metrics")):
        if name not in known:
            fix = f"this task can have {', '.join(known)}"
            raise UsageError(f"the metric {name[:60]!r} does not fit", where=entries["metrics"].where, fix=fix)
    return names


def _columns(format: Format, entry: _Entry | None) -> Columns | None:
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

    label = entries["label"].word("label") if "label" in entries else "label"
    index = entries["index"].word("index") if "index" in entries else None
    return Columns(tuple(column(name) for name in fields), label, identifier=index)


def _splits(columns: Columns | None, entry: _Entry | None) -> dict[str, tuple[Source, ...]]:
    if entry is None:
        return {
            split: tuple(Source((f"{split}.{kind}",), kind, columns) for kind in KINDS)
            for split in ("train", "dev", "test")
        }
    splits: dict[str, tuple[Source, ...]] = {}
    for split, one in entry.entries("splits", ()).items():
        file = one.word("a split's file")
        kinds = [kind for kind in KINDS if file.lower().endswith(f".{kind}")]
        if not kinds:
            fix = f"name a file in {', '.join(f'.{kind}' for kind in KINDS)}"
            raise UsageError(f"{file[:60]!r} is not a kind of file that is read", where=one.where, fix=fix)
        if not SAFE_NAME.fullmatch(split):
            raise UsageError(f"{split[:60]!r} cannot name a split", where=one.where, fix="write train, dev or test")
        splits[split] = (Source((file,), kinds[0], columns),)
    if not splits:
        raise UsageError("splits is empty", where=entry.where, fix="write train: FILE and dev: FILE")
    return splits


def _count(entry: _Entry) -> int:
    word = entry.word("choices")
    if not (word.isascii() and word.isdigit() and len(word) < 4 and int(word) >= 2):
        raise UsageError("choices is not a number of at least 2", where=entry.where, fix="write choices: 4")
    return int(word)


def _hub(entry: _Entry | None, columns: Columns | None) -> HubSource | None:
    if entry is None:
        return None
    name, _, configuration = entry.word("hub").removeprefix("hf:").partition(":")
    if not name:
        raise UsageError("no data set named", where=entry.where, fix="write hub: NAME or NAME:CONFIG")
    return HubSource(name, configuration or None, HUB_SPLITS, columns)
