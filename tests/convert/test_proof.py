"""The proof finds what differs, calls a tie a tie, and measures what a cross-entropy measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from gptkit.convert.proof import (
    MOST_TOKENS,
    Answers,
    Logits,
    Proof,
    Questions,
    classifier_questions,
    compare,
    language_questions,
    observe,
    proof_text,
    require,
    summed_nll,
)
from gptkit.errors import GptkitError, InputError

VOCABULARY = 11


class Table:
    """A bigram model: the logits after an id are a row of a table."""

    name, version = "table", "1"

    def __init__(self, logits: Logits) -> None:
        self._logits = logits

    def encode(self, text: str) -> list[int]:
        return [ord(char) % VOCABULARY for char in text]

    def logits(self, ids: Sequence[int]) -> Logits:
        return self._logits[list(ids)]

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        ids = list(ids)
        for _ in range(count):
            ids.append(int(self._logits[ids[-1]].argmax()))
        return ids[-count:]


def table(seed: int = 0) -> Logits:
    return np.random.default_rng(seed).normal(size=(VOCABULARY, VOCABULARY)).astype(np.float32)


def questions(text: str | None = "abcdefghij" * 10) -> Questions:
    ids = None if text is None else [ord(char) % VOCABULARY for char in text]
    return language_questions(ids, text, n_positions=32, vocab_size=VOCABULARY, parameters=100)


def answers(logits: Logits, asked: Questions | None = None) -> Answers:
    return observe(Table(logits), asked or questions(), with_gaps=True)


def test_the_text_holds_what_tokenizers_differ_on() -> None:
    text = proof_text()
    assert 95_000 <= len(text.encode()) <= 125_000
    for needed in ("\r\n", "\N{GRINNING FACE}", "\u200d", "日本語", "한국어", "e\u0301", "\u3000", "\t\t", "   \n\n"):
        assert text.count(needed) >= 9
    assert text == proof_text()
    assert "<|" not in text  # no entry for the end of a text, which each program reads in its own way


def test_nll_is_the_cross_entropy() -> None:
    logits, targets = torch.randn(200, VOCABULARY) * 5, torch.randint(VOCABULARY, (200,))
    expected = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="sum")
    assert summed_nll(logits.numpy(), targets.tolist()) == pytest.approx(float(expected))


def test_a_program_that_computes_the_same_agrees() -> None:
    proof = compare(answers(table()), answers(table()))
    assert proof == Proof("table 1", 0.0, 0.0, True, True)
    require(proof, answers(table()), "f32", where="source")


def test_a_wrong_logit_fails_and_names_the_program() -> None:
    wrong = table()
    wrong[3, 4] += 0.01
    proof = compare(answers(table()), answers(wrong))
    assert proof.max_logit_difference == pytest.approx(0.01, rel=1e-4)
    with pytest.raises(GptkitError, match=r"table 1 computes something else: logits differ by 1\.0e-02"):
        require(proof, answers(table()), "f32", where="source")
    require(proof, answers(table()), "q8_0", where="source")  # which may cost that much


def test_the_nll_finds_what_is_wrong_where_no_logits_are_kept() -> None:
    text = "abcdefghi" * 30 + "j" * 70  # its last windows hold an id that no earlier one has
    wrong = table()
    wrong[ord("j") % VOCABULARY, 0] += 3
    proof = compare(answers(table(), questions(text)), answers(wrong, questions(text)))
    assert proof.max_logit_difference == 0
    with pytest.raises(GptkitError, match="NLL changes"):
        require(proof, answers(table()), "f32", where="source")


@pytest.mark.parametrize("fault", ["shape", "nan"])
def test_no_dtype_excuses_other_shapes_or_nan(fault: str) -> None:
    theirs = answers(table())
    rows = theirs.logits[0][:-1] if fault == "shape" else np.full_like(theirs.logits[0], np.nan)
    proof = compare(answers(table()), replace(theirs, logits=[rows, *theirs.logits[1:]]))
    assert proof.max_logit_difference == math.inf
    for dtype in ("f32", "q4_0"):
        with pytest.raises(GptkitError):
            require(proof, theirs, dtype, where="source")


def test_a_lesser_dtype_may_not_cost_too_much() -> None:
    proof = Proof("peer 1", 1.0, 0.3, True, False)
    require(proof, answers(table()), "q4_0", where="source")
    for dtype in ("f16", "bf16", "q8_0", "int8"):
        with pytest.raises(GptkitError, match=r"NLL changes by \+0\.3 nats"):
            require(proof, answers(table()), dtype, where="source")


def test_other_ids_fail_unless_that_is_known() -> None:
    theirs = replace(answers(table()), ids=[0])
    proof = compare(answers(table()), theirs)
    assert proof.tokenizer_ids_equal is False
    with pytest.raises(GptkitError, match="tokenizer gives other ids"):
        require(proof, theirs, "f32", where="source")
    require(proof, theirs, "f32", where="source", same_ids=False)


def test_texts_may_go_apart_at_a_tie_only() -> None:
    asked = questions()
    tied = table()
    place = int(asked.prompts[0][-1])
    first, second = np.argsort(-tied[place])[:2]
    for gap, is_tie in ((1e-5, True), (1e-2, False)):
        ours, theirs = tied.copy(), tied.copy()
        ours[place, second] = ours[place, first] - gap
        theirs[place, second] = theirs[place, first] + gap
        assert compare(answers(ours, asked), answers(theirs, asked)).greedy_equal is is_tie


def test_without_a_tokenizer_random_ids_are_compared() -> None:
    asked = questions(None)
    assert asked.text is None
    assert all(0 <= id < VOCABULARY for window in asked.windows for id in window)
    assert compare(answers(table(), asked), answers(table(), asked)).tokenizer_ids_equal is None


def test_damaged_weights_are_the_sources_fault() -> None:
    with pytest.raises(InputError, match="not finite"):
        compare(answers(np.full_like(table(), np.nan)), answers(table()))


def test_large_models_are_asked_less_but_about_a_full_window() -> None:
    ids = list(range(VOCABULARY)) * 1000
    sizes = {"n_positions": 1024, "vocab_size": VOCABULARY}
    small = language_questions(ids, "", parameters=10**6, **sizes)
    large = language_questions(ids, "", parameters=15 * 10**8, **sizes)
    assert sum(map(len, small.windows)) == MOST_TOKENS
    assert [len(window) for window in large.windows] == [1024]
    assert len(large.prompts) < len(small.prompts)


@pytest.mark.parametrize("n_positions", [1, 2, 3])
def test_the_shortest_contexts_are_asked_what_fits(n_positions: int) -> None:
    asked = language_questions([1, 2, 3] * 9, "", n_positions=n_positions, vocab_size=VOCABULARY, parameters=100)
    assert all(len(window) <= n_positions for window in asked.windows)
    assert all(len(prompt) + asked.continuation <= n_positions for prompt in asked.prompts)
    assert answers(table(), asked).logits


def test_a_classifier_is_asked_about_texts_of_one_token_to_as_many_as_fit() -> None:
    asked = classifier_questions([1, 2, 3] * 20, "", markers=(9, 10), n_positions=16, vocab_size=VOCABULARY)
    assert {len(window) for window in asked.windows} == {3, 4, 9, 16}
    assert all(window[0] == 9 and window[-1] == 10 and not {9, 10} & {*window[1:-1]} for window in asked.windows)
