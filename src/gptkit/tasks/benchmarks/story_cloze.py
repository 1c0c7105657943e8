"""The Story Cloze Test: which of two endings is the right one? Fine-tuning and zero-shot (GPT-1, section 5)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from gptkit.errors import InputError
from gptkit.scoring.choices import ending_protocols
from gptkit.tasks.reading import zero_shot
from gptkit.tasks.task import Columns, Source, Task, best_before_gpt1, counts, gpt1
from gptkit.text.examples import Example

ORDER = 7


def _gpt1_split(path: Path, examples: list[Example], *, split: str) -> list[Example]:
    """Return GPT-1's train or dev part of the validation file.

    GPT-1 chose 374 of 1,871 for dev with scikit-learn's train_test_split, which is this permutation.
    """
    if len(examples) < 2:
        raise InputError("one example cannot be split in two", where=examples[0].where, fix="fetch the whole file")
    order = np.random.RandomState(3535999445).permutation(len(examples))
    held_out = max(1, round(len(examples) * 374 / 1871))
    return [examples[i] for i in (order[:held_out] if split == "dev" else order[held_out:])]


_COLUMNS = Columns(
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
        "train": (Source(_VALIDATION, "csv", _COLUMNS, select=partial(_gpt1_split, split="train")),),
        "dev": (Source(_VALIDATION, "csv", _COLUMNS, select=partial(_gpt1_split, split="dev")),),
        "test": (Source(("cloze_test_test__*.csv",), "csv", _COLUMNS),),
    },
    choices=2,
    sizes=counts(1497, 374, 1871),
    published=gpt1("accuracy", 86.5, 3),
    folders=("StoryCloze", "ROCStories"),
)


_ENDINGS = ending_protocols(best_before_gpt1(0.776, "GPT-1 paper, table 3"))

BENCHMARKS = (STORY_CLOZE, zero_shot(STORY_CLOZE, "test", *_ENDINGS))
