"""What the table of tasks is made of: a task, its files as their authors distribute them, its place on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Format = Literal["classification", "entailment", "similarity", "multiple-choice"]
Target = Literal["class", "choice", "score", "soft-score"]
Kind = Literal["tsv", "csv", "jsonl", "parquet", "race"]
DEMO_TASKS = ("demo-classification", "demo-similarity", "demo-entailment", "demo-cloze")
KINDS: tuple[Kind, ...] = ("jsonl", "csv", "tsv", "parquet")  # of generic files
Column = str | int  # by its name, or by its place in a file without a header


@dataclass(frozen=True)
class Columns:
    """Where a row keeps what an example needs.

    `fields` follows FORMAT_FIELDS: a column for each field; () = the field is empty; several columns = their texts,
    joined by a space, but for choices one each. `labels` is how the labels are spelled, in the task's order (() = by
    the task's names, or by index). A row labelled `no_gold` has no agreed label and is dropped. `replace` maps the
    words of a column to the text that a reader sees.
    """

    fields: tuple[Column | tuple[Column, ...], ...]
    label: Column | None = "label"
    labels: tuple[str, ...] = ()
    identifier: Column | tuple[Column, ...] | None = None
    no_gold: str | int | None = None
    replace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A file of a split (all of `paths` together; * stands for anything) as its authors distribute it.

    `columns` None: a generic file, whose columns are named like the format's fields. `header` is the complete header
    where every column counts; () = others may stand beside those that are read. `width` is the number of columns of a
    file without a header. `ragged`: columns behind those that are read may be missing or many. `broken`: rows with a
    wrong number of columns or an empty cell, which the official file is known to have, are dropped. `part` names the
    rule that takes the split out of a file of several.
    """

    paths: tuple[str, ...]
    kind: Kind
    columns: Columns | None = None
    header: tuple[str, ...] = ()
    width: int = 0
    ragged: bool = False
    broken: bool = False
    part: Literal["", "gpt1-train", "gpt1-dev", "msr-train", "msr-dev"] = ""


@dataclass(frozen=True)
class HubSource:
    """A data set of the hub: its splits by ours, and its columns."""

    path: str
    configuration: str | None
    splits: Mapping[str, str]
    columns: Columns | None


@dataclass(frozen=True)
class Published:
    """GPT-1's figure in percent, and the row of the paper's ablation (table 5) where it has one."""

    metric: str
    value: float
    source: str
    full: float | None = None
    no_pretraining: float | None = None
    no_aux: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Task:
    """A labelled task. The first metric chooses the best epoch.

    `labels` are the classes by index (() for scores and choices), `choices` how many an example has (None = as many as
    the first one). `splits` are the forms in which each split's files come, best first. `glue_file` is what the GLUE
    server calls the predictions. `folders` are further names of the task's folder. `is_own`: a user described it in
    YAML; `folder` is where its files are looked for without --data.
    """

    name: str
    format: Format
    labels: tuple[str, ...]
    target: Target
    metrics: tuple[str, ...]
    splits: Mapping[str, tuple[Source, ...]]
    data: str
    score_range: tuple[float, float] | None = None
    choices: int | None = None
    hub: HubSource | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    published: Published | None = None
    glue_file: str | None = None
    folders: tuple[str, ...] = ()
    is_own: bool = False
    folder: Path | None = None

    @property
    def is_demo(self) -> bool:
        """Whether the examples are made from the embedded corpus."""
        return self.name in DEMO_TASKS

    @property
    def official_labels(self) -> tuple[str, ...]:
        """The labels as the authors' files, and so the servers for submissions, spell them."""
        columns = [one.columns for sources in self.splits.values() for one in sources if one.columns]
        return next((one.labels for one in columns if one.labels), self.labels)
