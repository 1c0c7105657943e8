from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import chain

import numpy as np
import pytest

from gptkit.errors import UsageError
from gptkit.tasks.benchmarks import demo
from gptkit.tasks.benchmarks.demo import DEMO_LABELS
from gptkit.tasks.reading import load_examples
from gptkit.tasks.table import TASKS
from gptkit.tasks.task import FORMAT_FIELDS
from gptkit.text.corpora import open_corpus
from gptkit.text.embedded import embedded_documents
from gptkit.text.examples import Example

NAMES = ("demo-classification", "demo-similarity", "demo-entailment", "demo-cloze")
PAIRS = NAMES[1:]
SPLITS = ("train", "dev", "test")


def demo_examples(name: str, split: str) -> Sequence[Example]:
    task = TASKS[name]
    assert task.make is not None
    return task.make(split)


def module_of(example: Example) -> str:
    """Return what is never torn: the module, or the topic."""
    module, _, qualname = example.where.partition(":")
    return f"topic:{qualname}" if module == "pydoc_data.topics" else f"module:{module}"


def texts_of(example: Example) -> list[str]:
    parts = chain.from_iterable([field] if isinstance(field, str) else field for field in example.fields)
    return [" ".join(re.findall(r"[a-z0-9]+", part.lower())) for part in parts if part]


@cache
def documents_by_group() -> dict[str, str]:
    """Return the text of each module or topic, one space between words."""
    texts: dict[str, str] = {}
    for document in embedded_documents():
        texts[document.group] = f"{texts.get(document.group, '')} {' '.join(document.text.split())}"
    return texts


@pytest.mark.parametrize("name", NAMES)
def test_examples_fit_the_row_of_the_table(name: str) -> None:
    task = TASKS[name]
    for split in SPLITS:
        examples = demo_examples(name, split)
        assert [example.identifier for example in examples] == [str(number) for number in range(len(examples))]
        for example in examples:
            assert len(example.fields) == len(FORMAT_FIELDS[task.format])
            assert sum(len(text.split()) for text in texts_of(example)) < 120
            assert example.label in range(len(task.labels) or 2)
    assert (len(task.labels) or task.choices) == (8 if name == "demo-classification" else 2)


@pytest.mark.parametrize("name", NAMES)
def test_data_that_would_not_be_read_are_refused(name: str) -> None:
    assert load_examples(TASKS[name], "dev", None).notes == ()
    with pytest.raises(UsageError, match="reads no data"):
        load_examples(TASKS[name], "dev", "folder")


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_balance(name: str) -> None:
    for split in SPLITS:
        labels = Counter(example.label for example in demo_examples(name, split))
        n = labels.total()
        assert n >= {"train": 700, "dev": 200, "test": 200}[split]
        assert n <= {"train": 1700, "dev": 400, "test": 400}[split]
        assert max(labels.values()) <= (0.25 * n if name == "demo-classification" else n / 2 + 1)
        assert min(labels.values()) >= 0.04 * n
        assert len(labels) == (len(DEMO_LABELS) if name == "demo-classification" else 2)


@pytest.mark.parametrize("name", NAMES)
def test_no_module_and_no_text_is_on_two_sides(name: str) -> None:
    sides = [demo_examples(name, split) for split in SPLITS]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not {module_of(example) for example in sides[one]} & {module_of(example) for example in sides[other]}
        mine = set(chain.from_iterable(map(texts_of, sides[one])))
        assert not mine.intersection(chain.from_iterable(map(texts_of, sides[other])))
    for examples in sides:
        assert len({example.fields for example in examples}) == len(examples)


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_texts_are_not_much_like_training_texts(name: str) -> None:
    """No text shares more than half of its runs of five words with the side that is trained on."""

    def runs(text: str) -> list[str]:
        words = text.split()
        return [" ".join(words[at : at + 5]) for at in range(max(1, len(words) - 4))]

    trained = {run for example in demo_examples(name, "train") for text in texts_of(example) for run in runs(text)}
    for split in ("dev", "test"):
        for text in set(chain.from_iterable(map(texts_of, demo_examples(name, split)))):
            assert np.mean([run in trained for run in runs(text)]) <= 0.5


def test_pairs_are_evaluated_on_what_pretraining_holds_out() -> None:
    held_out = {piece.source for piece in open_corpus((), "0.1").validation.pieces()}
    for name in PAIRS:
        for split in SPLITS:
            groups = {module_of(example) for example in demo_examples(name, split)}
            assert groups.isdisjoint(held_out) if split == "train" else groups <= held_out


def test_a_docstring_does_not_name_its_package() -> None:
    for example in chain.from_iterable(demo_examples("demo-classification", split) for split in SPLITS):
        assert isinstance(example.label, int)
        label = DEMO_LABELS[example.label]
        assert example.where.split(":")[0].split(".")[0] == label
        assert label not in str(example.fields[0]).lower()


def test_true_parts_stand_in_their_document_in_order() -> None:
    for name in PAIRS:
        for example in demo_examples(name, "dev"):
            first, second = example.fields[0], example.fields[-1]
            if name == "demo-cloze":
                assert isinstance(example.label, int)
                second = second[example.label]
            elif example.label == 0:
                continue
            assert isinstance(first, str)
            assert isinstance(second, str)
            text = documents_by_group()[module_of(example)]
            between = r"\s.*?" if name == "demo-similarity" else r"\s" if name == "demo-cloze" else r"\s?.*?\s"
            assert re.search(re.escape(first) + between + re.escape(second), text)


@pytest.mark.parametrize("name", PAIRS)
def test_a_part_alone_tells_next_to_nothing(name: str) -> None:
    """Wrong parts are the right ones of other examples, so most stand as often on one side as on the other."""
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for example in demo_examples(name, "train"):
        if name == "demo-cloze":
            assert isinstance(example.label, int)
            right[example.fields[2][example.label]] += 1
            wrong[example.fields[2][1 - example.label]] += 1
        else:
            (right if example.label else wrong)[str(example.fields[1])] += 1
    lengths = [np.mean([len(text.split()) for text in side.elements()]) for side in (right, wrong)]
    assert abs(lengths[0] - lengths[1]) < 1
    if name == "demo-cloze":
        assert sum((right & wrong).values()) > 0.9 * right.total()


def test_equal_on_every_call_and_quickly_made() -> None:
    embedded_documents()
    before = {name: [demo_examples(name, split) for split in SPLITS] for name in NAMES}
    for cached in (demo._prose, demo._classification, demo._paired):
        cached.cache_clear()
    for name in NAMES:
        start = time.process_time()
        again = [demo_examples(name, split) for split in SPLITS]
        assert time.process_time() - start < 3
        assert again == before[name]
