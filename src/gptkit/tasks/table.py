"""The table of tasks: a row says what a task is, how its authors' files look, and what GPT-1 reached on it.

Counts are those that the authors or the hub publish; the figures are the GPT-1 paper's (Radford et al. 2018),
for GLUE's tasks from its test server.
"""

from __future__ import annotations

from pathlib import Path

from gptkit.errors import UsageError, suggest
from gptkit.tasks.demo import DEMO_LABELS
from gptkit.tasks.glue import BINARY, GLUE_TASKS, NLI, counts, gpt1, nli_files
from gptkit.tasks.task import Columns, Format, HubSource, Source, Target, Task

__all__ = ["TASKS", "Task", "find_task"]

_SENTENCES = ("sentence1", "sentence2")
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


def _scitail(split: str) -> tuple[Source, ...]:
    tsv = Columns((0, 1), 2, ("entails", "neutral"))
    snli = Columns(_SENTENCES, "gold_label", ("entailment", "neutral"))
    name = f"scitail_1.0_{split}"
    return tuple(
        source
        for folder in (True, False)
        for source in (
            Source((f"{'tsv_format/' * folder}{name}.tsv",), "tsv", tsv, width=3),
            Source((f"{'snli_format/' * folder}{name}.txt",), "jsonl", snli),
        )
    )


def _race(name: str, levels: tuple[str, ...], sizes: dict[str, int], accuracy: float) -> Task:
    columns = Columns(("article", "question", "options"), "answer", tuple("ABCD"), "id")
    hub = Columns(("article", "question", "options"), "answer", tuple("ABCD"))
    return Task(
        name,
        "multiple-choice",
        (),
        "choice",
        ("accuracy",),
        {
            split: (Source(tuple(f"{split}/{level}" for level in levels), "race", columns),)
            for split in ("train", "dev", "test")
        },
        "www.cs.cmu.edu/~glai1/data/race",
        choices=4,
        hub=HubSource(
            "ehovy/race",
            name.partition("-")[2] or "all",
            _SPLITS,
            hub,
        ),
        sizes=sizes,
        published=gpt1("accuracy", accuracy, 3),
        folders=("RACE",),
    )


def _story_cloze() -> dict[str, tuple[Source, ...]]:
    columns = Columns(
        (tuple(f"InputSentence{i}" for i in range(1, 5)), (), ("RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2")),
        "AnswerRightEnding",
        ("1", "2"),
        "InputStoryid",
    )
    validation, test = ("cloze_test_val__*.csv",), ("cloze_test_test__*.csv",)
    return {
        "train": (Source(validation, "csv", columns, part="gpt1-train"),),
        "dev": (Source(validation, "csv", columns, part="gpt1-dev"),),
        "test": (Source(test, "csv", columns),),
    }


def _copa() -> Columns:
    words = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
    return Columns(("premise", "question", ("choice1", "choice2")), "label", BINARY, "idx", replace=words)


def _demo(name: str, format: Format, labels: tuple[str, ...], data: str) -> Task:
    target: Target = "class" if labels else "choice"
    splits: dict[str, tuple[Source, ...]] = {"train": (), "dev": (), "test": ()}
    choices = None if labels else 2
    return Task(name, format, labels, target, ("accuracy",), splits, f"made here: {data}", choices=choices)


_ROWS = (
    *GLUE_TASKS,
    Task(
        "snli",
        "entailment",
        NLI,
        "class",
        ("accuracy",),
        {split: nli_files(f"snli_1.0_{split}") for split in ("train", "dev", "test")},
        "nlp.stanford.edu/projects/snli",
        hub=HubSource(
            "stanfordnlp/snli",
            None,
            _SPLITS,
            Columns(("premise", "hypothesis"), no_gold=-1),
        ),
        sizes=counts(549367, 9842, 9824),
        published=gpt1("accuracy", 89.9, 2),
        folders=("snli_1.0",),
    ),
    Task(
        "scitail",
        "entailment",
        ("entailment", "neutral"),
        "class",
        ("accuracy",),
        {split: _scitail(split) for split in ("train", "dev", "test")},
        "allenai.org/data/scitail",
        hub=HubSource(
            "allenai/scitail",
            "snli_format",
            _SPLITS,
            Columns(_SENTENCES, "gold_label", ("entailment", "neutral")),
        ),
        sizes=counts(23596, 1304, 2126),
        published=gpt1("accuracy", 88.3, 2),
        folders=("SciTailV1.1", "SciTailV1"),
    ),
    _race("race", ("middle", "high"), counts(87866, 4887, 4934), 59.0),
    _race("race-middle", ("middle",), counts(25421, 1436, 1436), 62.9),
    _race("race-high", ("high",), counts(62445, 3451, 3498), 57.4),
    Task(
        "story-cloze",
        "multiple-choice",
        (),
        "choice",
        ("accuracy",),
        _story_cloze(),
        "cs.rochester.edu/nlp/rocstories (a form); train and dev are GPT-1's split of the validation file",
        choices=2,
        sizes=counts(1497, 374, 1871),
        published=gpt1("accuracy", 86.5, 3),
        folders=("StoryCloze", "ROCStories"),
    ),
    Task(
        "copa",
        "multiple-choice",
        (),
        "choice",
        ("accuracy",),
        {
            "train": (Source(("train.jsonl",), "jsonl", _copa()),),
            "dev": (Source(("val.jsonl",), "jsonl", _copa()),),
            "test": (Source(("test.jsonl",), "jsonl", _copa()),),
        },
        "SuperGLUE (super.gluebenchmark.com/tasks)",
        choices=2,
        hub=HubSource("aps/super_glue", "copa", _SPLITS, _copa()),
        sizes=counts(400, 100, 500),
    ),
    Task(
        "breaking-nli",
        "entailment",
        NLI,
        "class",
        ("accuracy",),
        {
            "test": (
                Source(("dataset.jsonl",), "jsonl", Columns(_SENTENCES, "gold_label", NLI, "pairID")),
                Source(("data/dataset.jsonl",), "jsonl", Columns(_SENTENCES, "gold_label", NLI, "pairID")),
            )
        },
        "github.com/BIU-NLP/Breaking_NLI (evaluation only)",
        sizes={"test": 8193},
        folders=("Breaking_NLI-master",),
    ),
    _demo("demo-classification", "classification", DEMO_LABELS, "which package a docstring is from"),
    _demo("demo-similarity", "similarity", ("different", "same"), "do two passages come from the same docstring"),
    _demo("demo-entailment", "entailment", ("elsewhere", "follows"), "does the second sentence follow the first"),
    _demo("demo-cloze", "multiple-choice", (), "which of two endings is the real one"),
)
TASKS: dict[str, Task] = {row.name: row for row in _ROWS}


def find_task(name: str) -> Task:
    """Return the row of that name, or the user's own task out of a .yaml file (see task_yaml.py).

    Raises UsageError with the nearest known name.
    """
    if name in TASKS:
        return TASKS[name]
    if name.lower().endswith((".yaml", ".yml")):
        from gptkit.tasks.own import read_task

        return read_task(Path(name).expanduser(), taken=TASKS)
    fix = f"{suggest(name, TASKS)} (your own: a .yaml file)"
    raise UsageError(f"no task is called {name!r}", where="--task", fix=fix)
