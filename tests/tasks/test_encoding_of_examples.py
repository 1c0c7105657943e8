"""Examples as flat ids: golden batches written by hand, any tokenizer, and texts that try to spell a marker."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from gptkit.tasks.encoding import (
    EncodedExamples,
    Markers,
    encode_examples,
    format_example,
    soft_scores,
)
from gptkit.tasks.task import Format, Target, Task
from gptkit.text.examples import Example
from gptkit.text.tokenizers.any_tokenizer import NEWLINE_TOKEN
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer
from gptkit.text.tokenizers.kinds import train_tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz<>_|"
GPT1_PIECES = ["<unk>", *LETTERS, *(letter + "</w>" for letter in LETTERS), "lo", "low</w>", NEWLINE_TOKEN]
TOKENIZERS: dict[str, PreTrainedTokenizerBase] = {
    "char": train_tokenizer("char", ["abcdef"]),
    "bytes": train_tokenizer("bpe:280", ["low lower lowest\n" * 3]),
    "gpt1": GPT1Tokenizer({piece: id for id, piece in enumerate(GPT1_PIECES)}, [("l", "o"), ("lo", "w</w>")]),
}
CHAR = TOKENIZERS["char"]  # a to f are 0 to 5, then <|endoftext|> 6 and <unk> 7
S, D, E = 8, 9, 10
MARKERS = Markers(S, D, E)


def example(*fields: str | tuple[str, ...], label: float | None = 0, where: str = "dev.tsv:2") -> Example:
    return Example(fields, label, where, "0")


def toy(task_format: Format, target: Target = "class") -> Task:
    labels = ("no", "maybe", "yes") if target == "class" and task_format != "multiple-choice" else ()
    return Task("toy", task_format, "nowhere", {}, labels, soft_scores=target == "soft-score")


def encoded(task_format: Format, *examples: Example, limit: int = 12, target: Target = "class") -> EncodedExamples:
    return encode_examples(CHAR, toy(task_format, target), examples, MARKERS, limit)


def batch(examples: EncodedExamples, *indices: int) -> dict[str, Any]:
    return {name: array.tolist() for name, array in examples.select(np.array(indices)).items()}


def test_entailment_by_hand() -> None:
    examples = encoded(
        "entailment", example("abc", "d", label=1), example("f", "", label=0), example("ab", "ccccccccc")
    )
    assert examples.ids.tolist() == [S, 0, 1, 2, D, 3, E, S, 5, D, E, S, 0, 1, D, *[2] * 7, E]
    assert batch(examples, 1, 0) == {
        "input_ids": [[[S, 5, D, E, 0, 0, 0, 0]], [[S, 0, 1, 2, D, 3, E, 0]]],  # a multiple of 8
        "extract": [[3], [6]],
        "labels": [0, 1],
    }
    assert (examples.truncated, examples.n_truncated) == ({"hypothesis": 1}, 1)
    assert examples.lengths.tolist() == examples.tokens.tolist() == [7, 4, 12]


def test_similarity_by_hand() -> None:
    examples = encoded("similarity", example("ab", "c", label=2.5), target="score")
    assert batch(examples, 0) == {
        "input_ids": [[[S, 0, 1, D, 2, E], [S, 2, D, 0, 1, E]]],
        "extract": [[5, 5]],
        "labels": [2.5],
    }


def test_multiple_choice_by_hand() -> None:
    examples = encoded(
        "multiple-choice",
        example("ab", "c", ("d", "eee"), label=1),
        example("abababab", "", ("f", "ff"), label=0),
        limit=10,
    )
    assert batch(examples, 0, 1) == {
        "input_ids": [
            [[S, 0, 1, 2, D, 3, E, 0, 0, 0], [S, 0, 1, 2, D, 4, 4, 4, E, 0]],
            [[S, 0, 1, 0, 1, 0, D, 5, E, 0], [S, 0, 1, 0, 1, 0, D, 5, 5, E]],
        ],
        "extract": [[6, 8], [8, 9]],
        "labels": [1, 0],
    }
    assert (len(examples), examples.sequences_per_example) == (2, 2)
    assert (examples.lengths.tolist(), examples.tokens.tolist()) == ([9, 10], [16, 19])
    assert (examples.truncated, examples.n_truncated) == ({"context": 1}, 1)


def test_an_example_counts_once_however_many_fields_are_cut() -> None:
    examples = encoded("entailment", example("a" * 9, "b" * 9), example("a" * 9, "b"), example("a", "b"), limit=8)
    assert (examples.truncated, examples.n_truncated) == ({"premise": 2, "hypothesis": 1}, 2)


@pytest.mark.parametrize(
    ("target", "labels", "dtype", "targets"),
    [
        ("class", [2, 0], np.int64, [2, 0]),
        ("choice", [1, 0], np.int64, [1, 0]),
        ("score", [2.25, 5.0], np.float32, [2.25, 5.0]),
        ("soft-score", [2.25, 5.0], np.float32, [[0, 0, 0.75, 0.25, 0, 0], [0, 0, 0, 0, 0, 1]]),
    ],
)
def test_targets(target: Target, labels: list[float], dtype: type, targets: list[Any]) -> None:
    fields = ("a", "", ("b", "c")) if target == "choice" else ("a",)
    format = "multiple-choice" if target == "choice" else "classification"
    examples = encoded(format, *(example(*fields, label=label) for label in labels), target=target)
    assert examples.targets is not None
    assert (examples.targets.dtype, examples.targets.tolist()) == (dtype, targets)


def test_without_labels_a_batch_has_none() -> None:
    examples = encoded("classification", example("a", label=None), example("b", label=None))
    assert examples.targets is None
    assert set(examples.select(np.array([1]))) == {"input_ids", "extract"}


@given(st.lists(st.floats(0, 5, width=32), min_size=1, max_size=20))
def test_soft_scores_are_distributions_with_the_score_as_mean(scores: list[float]) -> None:
    distributions = soft_scores(np.array(scores, np.float32))
    assert np.all(distributions >= 0)
    np.testing.assert_allclose(distributions.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(distributions @ np.arange(6), scores, atol=1e-6)
    assert np.all((distributions > 0).sum(axis=1) <= 2)


@pytest.mark.parametrize("score", [-0.01, 5.01, float("nan")])
def test_soft_scores_beyond_the_range_are_refused(score: float) -> None:
    with pytest.raises(ValueError, match="within 0 to 5"):
        soft_scores(np.array([1.0, score], np.float32))


SPELLED = ["<|endoftext|>", "<unk>", "_start_", "_delimiter_", "_classify_", "low", "\n", " ", "", "8", "é", "\x00"]
TEXTS = st.lists(st.sampled_from(SPELLED) | st.text(max_size=4), max_size=6).map("".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8)


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=60)
@given(pairs=PAIRS, limit=st.integers(6, 40))
def test_any_text_is_formatted_as_its_ids_and_spells_no_marker(
    kind: str, pairs: list[tuple[str, str]], limit: int
) -> None:
    tokenizer = TOKENIZERS[kind]
    first_free = len(tokenizer)
    markers = Markers(first_free, first_free + 1, first_free + 2)
    examples = [example(*pair) for pair in pairs]
    found = encode_examples(tokenizer, toy("similarity"), examples, markers, limit)
    expected = [
        sequence
        for pair in pairs
        for sequence in format_example(
            "similarity", [ids.tolist() for ids in encode_pieces(tokenizer, pair)], markers, limit
        ).sequences
    ]
    assert [ids.tolist() for ids in np.split(found.ids, found.offsets[1:-1])] == expected
    counts = np.bincount(found.ids, minlength=first_free + 3)[first_free:]
    assert counts.tolist() == [2 * len(pairs)] * 3


def test_markers_that_are_entries_of_the_tokenizer_are_refused() -> None:
    with pytest.raises(ValueError, match=r"entries \[6\]"):
        encode_examples(CHAR, toy("classification"), [example("a")], MARKERS._replace(extract=6), 8)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6), st.data())
def test_a_batch_is_the_chosen_examples_whatever_lies_between(
    pairs: list[tuple[str, str]], data: st.DataObject
) -> None:
    examples = encoded("similarity", *(example(*pair, label=i) for i, pair in enumerate(pairs)))
    indices = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, unique=True))
    chosen = examples.select(np.array(indices))
    assert chosen["labels"].tolist() == indices
    width, longest = chosen["input_ids"].shape[-1], examples.lengths[indices].max()
    assert longest <= width < longest + 8
    assert width % 8 == 0 or width == examples.lengths.max()
    for row, index in enumerate(indices):
        for order in (0, 1):
            start, end = examples.offsets[2 * index + order : 2 * index + order + 2]
            expected = np.zeros(chosen["input_ids"].shape[-1], np.int64)
            expected[: end - start] = examples.ids[start:end]
            assert chosen["input_ids"][row, order].tolist() == expected.tolist()
            assert chosen["input_ids"][row, order, chosen["extract"][row, order]] == E


def test_large_sets_are_flat_and_fast() -> None:
    """Measured as time of this thread, which other programs do not lengthen; the tokenizer works in others."""
    examples = [example(f"low {i} lower " * 2, f"lowest {i % 100}", label=i % 3) for i in range(10_000)]
    started = time.thread_time()
    found = encode_examples(TOKENIZERS["bytes"], toy("entailment"), examples, Markers(300, 301, 302), 64)
    assert time.thread_time() - started < 1
    assert len(found) == 10_000
    arrays = (found.ids, found.offsets, found.targets)
    assert sum(array.nbytes for array in arrays if array is not None) == 4 * len(found.ids) + 8 * 20_001
    started = time.thread_time()
    for start in range(0, 10_000, 32):
        found.select(np.arange(start, min(start + 32, 10_000)))
    assert time.thread_time() - started < 0.5
