"""Which choice is right? Fine-tuned, and zero-shot (GPT-1, section 5; COPA as lm-eval has it).

RACE: English examinations for middle and high schools. Story Cloze: which of two endings does a story of four sentences
have? COPA, a task of SuperGLUE: which of two events is the cause or the effect?
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gptkit.errors import InputError
from gptkit.scoring.choices import ChoiceProtocol, Pair, Score, ending_pairs, per_token, total
from gptkit.scoring.protocols import Published
from gptkit.system.reading import json_object
from gptkit.tasks.files import JSON_FIX, lines
from gptkit.tasks.reading import zero_shot
from gptkit.tasks.task import BINARY, Columns, Evaluation, HubSource, Source, Task, best_before_gpt1, counts, gpt1
from gptkit.text.examples import Example

ORDER = 6

_RACE_HUB = Columns(("article", "question", "options"), "answer", tuple("ABCD"))
_RACE_COLUMNS = Columns(_RACE_HUB.fields, "answer", _RACE_HUB.labels, "id")


def _questions(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a row for each question of the passages in RACE's folder, by the numbers of its files."""
    for path in sorted(folder.glob("*.txt"), key=lambda path: (len(path.stem), path.stem)):
        passage = json_object("\n".join(text for _, text in lines(path)), f"{path}:1", JSON_FIX)
        columns = [passage.get(key) for key in ("questions", "options", "answers")]
        if not all(isinstance(column, list) and len(column) == len(columns[0] or ()) for column in columns):
            fix = "a passage has as many questions as options and answers"
            raise InputError("questions, options and answers are no lists of one length", where=f"{path}:1", fix=fix)
        for i, (question, options, answer) in enumerate(zip(*columns, strict=True)):
            row = {"article": passage.get("article"), "question": question, "options": options, "answer": answer}
            yield f"{path}:1, question {i + 1}", row | {"id": f"{folder.name}{path.stem}-{i + 1}"}


def _race(name: str, levels: tuple[str, ...], sizes: dict[str, int], accuracy: float) -> Task:
    return Task(
        name,
        "multiple-choice",
        "www.cs.cmu.edu/~glai1/data/race",
        {
            split: (Source(tuple(f"{split}/{level}/" for level in levels), _questions, _RACE_COLUMNS),)
            for split in ("train", "dev", "test")
        },
        choices=4,
        hub=HubSource("ehovy/race", name.partition("-")[2] or "all", _RACE_HUB),
        sizes=sizes,
        published=gpt1("accuracy", accuracy, 3),
        folders=("RACE",),
    )


def _race_evaluation(task: Task, best: float) -> Evaluation:
    protocol = ChoiceProtocol(
        "gpt1",
        "the answer after document and question, the mean over its tokens",
        published=best_before_gpt1(best, "GPT-1 paper, table 3 (9 models together)"),
        chance=1 / 4,
        pairs=ending_pairs,
        score=per_token,
    )
    return zero_shot(task, "test", "examination questions on a passage", protocol)


RACE = (
    _race("race", ("middle", "high"), counts(87866, 4887, 4934), 59.0),
    _race("race-middle", ("middle",), counts(25421, 1436, 1436), 62.9),
    _race("race-high", ("high",), counts(62445, 3451, 3498), 57.4),
)


def _gpt1_split(path: Path, examples: list[Example], *, split: str) -> list[Example]:
    """Return what GPT-1 took of the validation file for train or dev.

    It took 374 of 1,871 for dev by scikit-learn's train_test_split, which is this permutation.
    """
    if len(examples) < 2:
        raise InputError("one example cannot be split in two", where=examples[0].where, fix="fetch the whole file")
    order = np.random.RandomState(3535999445).permutation(len(examples))
    held_out = max(1, round(len(examples) * 374 / 1871))
    return [examples[i] for i in (order[:held_out] if split == "dev" else order[held_out:])]


_STORY_COLUMNS = Columns(
    (tuple(f"InputSentence{i}" for i in range(1, 5)), (), ("RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2")),
    "AnswerRightEnding",
    ("1", "2"),
    "InputStoryid",
)
_VALIDATION = ("cloze_test_val__*.csv",)
STORY_CLOZE = Task(
    "story-cloze",
    "multiple-choice",
    "cs.rochester.edu/nlp/rocstories (a form); train and dev are GPT-1's split of the validation file",
    {
        "train": (Source(_VALIDATION, "csv", _STORY_COLUMNS, select=partial(_gpt1_split, split="train")),),
        "dev": (Source(_VALIDATION, "csv", _STORY_COLUMNS, select=partial(_gpt1_split, split="dev")),),
        "test": (Source(("cloze_test_test__*.csv",), "csv", _STORY_COLUMNS),),
    },
    choices=2,
    sizes=counts(1497, 374, 1871),
    published=gpt1("accuracy", 86.5, 3),
    folders=("StoryCloze", "ROCStories"),
)


def ending_protocols(published: tuple[Published, ...] = ()) -> tuple[ChoiceProtocol, ...]:
    """Return the protocols that compare two endings of a story."""

    def protocol(name: str, score: Score) -> ChoiceProtocol:
        about = f"the ending after the story, the {name} over its tokens"
        return ChoiceProtocol(name, about, published=published, pairs=ending_pairs, score=score)

    return protocol("sum", total), protocol("mean", per_token)


_ENDINGS = ending_protocols(best_before_gpt1(0.776, "GPT-1 paper, table 3"))


_CAUSE, _EFFECT = "What was the cause of this?", "What happened as a result?"
_CONNECTIVES = {_CAUSE: "because", _EFFECT: "therefore"}
_COPA_FIELDS = ("premise", "question", ("choice1", "choice2"))
_COPA_COLUMNS = Columns(_COPA_FIELDS, "label", BINARY, "idx", replace={"cause": _CAUSE, "effect": _EFFECT})
COPA = Task(
    "copa",
    "multiple-choice",
    "SuperGLUE (super.gluebenchmark.com/tasks)",
    {
        "train": (Source(("train.jsonl",), "jsonl", _COPA_COLUMNS),),
        "dev": (Source(("val.jsonl",), "jsonl", _COPA_COLUMNS),),
        "test": (Source(("test.jsonl",), "jsonl", _COPA_COLUMNS),),
    },
    choices=2,
    hub=HubSource("aps/super_glue", "copa", _COPA_COLUMNS),
    sizes=counts(400, 100, 500),
)


def copa_pairs(example: Example) -> list[Pair]:
    """Return the premise without its full stop and with because or therefore, and each choice in lower case."""
    premise, question, choices = example.fields
    if question not in _CONNECTIVES:
        fix = f"the question is one of: {' '.join(_CONNECTIVES)}"
        raise InputError(f"unknown question {str(question)[:60]!r}", where=example.where, fix=fix)
    context = f"{str(premise).strip().removesuffix('.')} {_CONNECTIVES[str(question)]}"
    return [(context, f" {choice[0].lower()}{choice[1:]}") for choice in choices]


_LM_EVAL = ChoiceProtocol(
    "lm-eval",
    "the choice after the premise and because or therefore, the sum over its tokens, the first of a tie (lm-eval)",
    pairs=copa_pairs,
    ties="first",
)


_STORY = zero_shot(STORY_CLOZE, "test", "which of two endings a story of four sentences has", *_ENDINGS)
_COPA = zero_shot(COPA, "dev", "which of two events is the cause or the effect", _LM_EVAL)
BENCHMARKS = (*RACE, *map(_race_evaluation, RACE, (0.533, 0.602, 0.503)), STORY_CLOZE, _STORY, COPA, _COPA)
