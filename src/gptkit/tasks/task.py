"""What a benchmark is made of: a labelled task with its files and its place on the hub, and a zero-shot evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gptkit.scoring.protocols import Protocol, Published, ScoredProtocol
from gptkit.text.examples import Example

if TYPE_CHECKING:
    from gptkit.scoring.encoder import Encoder

Format = Literal["classification", "entailment", "similarity", "multiple-choice"]
FORMAT_FIELDS = {
    "classification": ("text",),
    "entailment": ("premise", "hypothesis"),
    "similarity": ("first", "second"),
    "multiple-choice": ("context", "question", "choices"),
}
Target = Literal["class", "choice", "score", "soft-score"]
Kind = Literal["tsv", "csv", "jsonl", "parquet"]
KINDS: tuple[Kind, ...] = ("jsonl", "csv", "tsv", "parquet")  # of generic files
HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
BINARY = ("0", "1")  # how many files spell two labels
Column = str | int  # by its name, or by its place in a file without a header
KeyedRows = Iterator[tuple[str, dict[str, Any]]]  # each with its place, "file:line"


@dataclass(frozen=True)
class Columns:
    """Where a row keeps what an example needs.

    `fields` follows FORMAT_FIELDS: a column for each field; () = the field is empty; several columns = their texts,
    joined by a space, but for choices one each. `labels` is how the labels are spelled, in the task's order (() = by
    the task's names, or by index). A row labelled `unlabelled` has no agreed label and is dropped. `replace` maps the
    words of a column to the text that the model reads.
    """

    fields: tuple[Column | tuple[Column, ...], ...]
    label: Column | None = "label"
    labels: tuple[str, ...] = ()
    identifier: Column | tuple[Column, ...] | None = None
    unlabelled: str | int | None = None
    replace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A file of a split (all of `paths` together; * stands for anything) as its authors distribute it.

    `kind` is a function where the paths are folders (they end with a slash): it reads the rows of one. `columns` None:
    a generic file, whose columns are named like the format's fields. `header` is the complete header where every column
    counts; () = others may stand beside those that are read. `width` is the number of columns of a file without a
    header. `ragged`: columns behind those that are read may be missing or many. `skip_broken`: rows with a wrong number
    of columns or an empty cell, which the official file is known to have, are dropped. `select` takes the split out of
    the examples of the first path, where the file holds several.
    """

    paths: tuple[str, ...]
    kind: Kind | Callable[[Path], KeyedRows]
    columns: Columns | None = None
    header: tuple[str, ...] = ()
    width: int = 0
    ragged: bool = False
    skip_broken: bool = False
    select: Callable[[Path, list[Example]], list[Example]] | None = None


@dataclass(frozen=True)
class HubSource:
    """A data set of the hub: its columns, and its splits by ours."""

    path: str
    configuration: str | None
    columns: Columns | None
    splits: Mapping[str, str] = field(default_factory=lambda: HUB_SPLITS)


@dataclass(frozen=True)
class Task:
    """A labelled task. The first metric chooses the best epoch.

    `splits` are the forms in which each split's files come, best first. `labels` are the classes by index (() for
    scores and choices), `choices` how many an example has (None = as many as the first one). `soft_scores`: a score is
    trained as a distribution over 0 to 5. `published` is GPT-1's figure, `ablation` the row of its table 5 in percent,
    where it has one. `glue_file` is what the GLUE server calls the predictions. `folders` are further names of the
    task's folder. `make` makes the examples of a split that no file holds. `is_own`: a user described it in YAML;
    `folder` is where its files are looked for without --data.
    """

    name: str
    format: Format
    data: str
    splits: Mapping[str, tuple[Source, ...]]
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    choices: int | None = None
    score_range: tuple[float, float] | None = None
    soft_scores: bool = False
    hub: HubSource | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    published: Published | None = None
    ablation: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    glue_file: str | None = None
    folders: tuple[str, ...] = ()
    make: Callable[[str], Sequence[Example]] | None = None
    is_own: bool = False
    folder: Path | None = None

    @property
    def target(self) -> Target:
        """What a head is trained to answer."""
        if self.format == "multiple-choice":
            return "choice"
        if self.labels:
            return "class"
        return "soft-score" if self.soft_scores else "score"

    @property
    def is_demo(self) -> bool:
        """Whether the examples are made from the embedded corpus."""
        return self.make is not None

    @property
    def official_labels(self) -> tuple[str, ...]:
        """The labels as the authors' files, and so the servers for submissions, spell them."""
        columns = [source.columns for sources in self.splits.values() for source in sources if source.columns]
        return next((one.labels for one in columns if one.labels), self.labels)


@dataclass(frozen=True)
class Loaded:
    """A split, whole and checked; `notes` say what was dropped, `sha256` is over the texts and labels."""

    examples: tuple[Example, ...]
    notes: tuple[str, ...]
    sha256: str


def loaded(examples: Sequence[Example], notes: Sequence[str] = ()) -> Loaded:
    """Return the examples with the hash of their texts and labels."""
    digest = hashlib.sha256()
    for example in examples:
        texts: list[str] = []
        for text in example.fields:  # none holds a NUL
            texts += [text] if isinstance(text, str) else [str(len(text)), *text]
        digest.update("\0".join([*texts, repr(example.label), ""]).encode())
    return Loaded(tuple(examples), tuple(notes), digest.hexdigest())


@dataclass(frozen=True)
class Evaluation:
    """A zero-shot evaluation. `load` reads and checks what --data names (None: nothing was given).

    `banned` are tokens that `Answer.top_allowed` may not be. `size` is the number of examples as published. `texts` are
    the texts of an example that are looked for in a training corpus, all of its fields by default. `sliding` returns
    the protocol of a stride, where the examples are running text. `overlap` is GPT-2's table 6: the fraction of the
    8-grams that the evaluation's own training set holds, and that WebText holds.
    """

    name: str
    about: str
    data: str
    load: Callable[[str | None], Loaded]
    protocols: tuple[Protocol, ...]
    size: int | None = None
    banned: Callable[[Encoder], Sequence[int]] | None = None
    texts: Callable[[Example], tuple[str, ...]] | None = None
    sliding: Callable[[int], ScoredProtocol] | None = None
    overlap: tuple[float, float] | None = None


def counts(train: int, dev: int, test: int, **more: int) -> dict[str, int]:
    return {"train": train, "dev": dev, "test": test} | {name.replace("_", "-"): count for name, count in more.items()}


def gpt1(measure: str, percent: float, table: int) -> Published:
    """Return a figure of the GPT-1 paper."""
    return Published("GPT-1", measure, percent / 100, f"GPT-1 paper, table {table}")


def gpt2(measure: str, *values: float) -> tuple[Published, ...]:
    """Return the figures of the GPT-2 paper's table 3: those of its sizes, and perhaps the best before it."""
    models = ("GPT-2 117M", "GPT-2 345M", "GPT-2 762M", "GPT-2 1542M", "best published before GPT-2")
    figures = zip(models, values, strict=False)
    return tuple(Published(model, measure, value, "GPT-2 paper, table 3") for model, value in figures)


def best_before_gpt1(value: float, source: str, measure: str = "accuracy") -> tuple[Published, ...]:
    return (Published("best published before GPT-1", measure, value, source),)


def ablation(full: float, no_pretraining: float, no_aux: float) -> dict[str, float]:
    """Return a column of the GPT-1 paper's table 5."""
    return {"full": full, "no_pretraining": no_pretraining, "no_aux": no_aux}
