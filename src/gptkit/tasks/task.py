"""A benchmark as data: a labelled task (files, hub data set, published figures) and a zero-shot evaluation."""

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
SPLITS = ("train", "dev", "test")
HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
BINARY = ("0", "1")  # the spelling of two labels in many files
Column = str | int  # its name, or its index in a file without a header
KeyedRows = Iterator[tuple[str, dict[str, Any]]]  # ("file:line", row)


def may_lack_labels(split: str) -> bool:
    """Return whether the examples of a split may be unlabelled: those that no run is trained on or selected by."""
    return not split.startswith(("train", "dev"))


@dataclass(frozen=True)
class Columns:
    """The columns of a file that hold an example's fields, label and identifier.

    `fields` is parallel to FORMAT_FIELDS: a column for each field; () for an empty field; several columns whose texts
    are joined by spaces, or are one choice each. `labels` are the file's spellings of the task's labels, in the task's
    order (() = the task's names, or indices). A row labelled `unlabelled` has no gold label and is dropped. `replace`
    maps the cells of the question to the text that the model reads.
    """

    fields: tuple[Column | tuple[Column, ...], ...]
    label: Column | None = "label"
    labels: tuple[str, ...] = ()
    identifier: Column | tuple[Column, ...] | None = None
    unlabelled: str | int | None = None
    replace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """One form in which the files of a split are distributed: all of `paths`, where * is a wildcard.

    Paths that end with a slash are folders, and `kind` is the function that reads the rows of one. `columns` is None
    for a generic file, whose columns are named after the format's fields. `header` is the complete header of a file
    that may have no other columns; () allows them. `width` is the number of columns of a file without a header.
    `ragged`: the number of columns after those that are read may vary. `skip_broken`: drop rows with a wrong number of
    columns or an empty cell, which the official file is known to contain. `select` picks the split's examples out of a
    file that holds several splits, given its path and examples.
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
    """A data set of the hub: its columns, and its name for each of our splits."""

    path: str
    configuration: str | None
    columns: Columns | None
    splits: Mapping[str, str] = field(default_factory=lambda: HUB_SPLITS)

    @property
    def name(self) -> str:
        """What --data calls it: hf:PATH or hf:PATH:CONFIGURATION."""
        return ":".join(["hf", self.path, *filter(None, [self.configuration])])


@dataclass(frozen=True)
class Task:
    """A labelled task. The first metric selects the best epoch.

    `splits` maps each split to the forms of its files, in order of preference. `labels` are the class names by index
    (() for scores and choices). `choices` is the number of choices of every example (None: that of the first example).
    `soft_scores`: a score is trained as a distribution over 0 to 5. `published` is GPT-1's figure, `ablation` its row
    in the paper's table 5, in percent. `glue_file` is the file name that the GLUE server expects of predictions.
    `folders` are other names of the task's folder. `make` generates the examples of a split without files. `is_own`: a
    user described the task in YAML; `folder` is where its files are looked for without --data.
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
        """What a head is trained to predict."""
        if self.format == "multiple-choice":
            return "choice"
        if self.labels:
            return "class"
        return "soft-score" if self.soft_scores else "score"

    @property
    def is_demo(self) -> bool:
        """Whether the examples are generated from the embedded corpus."""
        return self.make is not None

    @property
    def official_labels(self) -> tuple[str, ...]:
        """The labels as spelled in the authors' files, and by the servers that take submissions."""
        columns = [source.columns for sources in self.splits.values() for source in sources if source.columns]
        return next((each.labels for each in columns if each.labels), self.labels)


@dataclass(frozen=True)
class Loaded:
    """A split, complete and checked. `notes` report dropped rows; `sha256` covers the texts and labels.

    `is_variant`: the texts are not those that published figures are of.
    """

    examples: tuple[Example, ...]
    notes: tuple[str, ...]
    sha256: str
    is_variant: bool = False


def loaded(examples: Sequence[Example], notes: Sequence[str] = ()) -> Loaded:
    """Return the examples with a hash of their texts and labels."""
    digest = hashlib.sha256()
    for example in examples:
        texts: list[str] = []
        for text in example.fields:  # without NUL: checked_text refuses it
            texts += [text] if isinstance(text, str) else [str(len(text)), *text]
        digest.update("\0".join([*texts, repr(example.label), ""]).encode())
    return Loaded(tuple(examples), tuple(notes), digest.hexdigest())


@dataclass(frozen=True)
class Evaluation:
    """A zero-shot evaluation. `load` reads and checks the data that --data names (None without --data).

    `banned` are the tokens excluded from `Answer.top_allowed`. `texts` returns the texts of an example to look for in a
    training corpus, by default all of its fields. `sliding` returns the protocol for a stride, for running text only.
    `overlap` is from GPT-2's table 6: the fractions of 8-grams that also occur in the evaluation's own training set and
    in WebText. `usual` names the protocol that most papers report ("": the first), and `fields` an example's fields.
    """

    name: str
    load: Callable[[str | None], Loaded]
    protocols: tuple[Protocol, ...]
    banned: Callable[[Encoder], Sequence[int]] | None = None
    texts: Callable[[Example], tuple[str, ...]] | None = None
    sliding: Callable[[int], ScoredProtocol] | None = None
    overlap: tuple[float, float] | None = None
    usual: str = ""
    fields: tuple[str, ...] = ("text",)


def counts(train: int, dev: int, test: int, **more: int) -> dict[str, int]:
    """Return the number of examples in each split."""
    return {"train": train, "dev": dev, "test": test} | {name.replace("_", "-"): count for name, count in more.items()}


def gpt1(measure: str, percent: float, table: int) -> Published:
    """Return a figure of the GPT-1 paper."""
    return Published("GPT-1", measure, percent / 100, f"GPT-1 paper, table {table}")


def gpt2(measure: str, *values: float) -> tuple[Published, ...]:
    """Return figures of the GPT-2 paper's table 3: its four sizes, and the state of the art before it if given."""
    models = ("GPT-2 117M", "GPT-2 345M", "GPT-2 762M", "GPT-2 1542M", "best published before GPT-2")
    figures = zip(models, values, strict=False)
    return tuple(Published(model, measure, value, "GPT-2 paper, table 3") for model, value in figures)


def best_before_gpt1(value: float, source: str, measure: str = "accuracy") -> tuple[Published, ...]:
    return (Published("best published before GPT-1", measure, value, source),)


def ablation(full: float, no_pretraining: float, no_aux: float, lstm: float) -> dict[str, float]:
    """Return a column of the GPT-1 paper's table 5."""
    return {"full": full, "no_pretraining": no_pretraining, "no_aux": no_aux, "lstm": lstm}
