"""Context and continuation encoded as one text: what is scored, by hand for each kind of tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gptkit.scoring.encoder import Encoder, shared_prefix
from gptkit.scoring.protocols import Request
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer


@pytest.fixture(scope="module")
def gpt2(test_data: Path) -> Encoder:
    return Encoder(load_tokenizer(str(test_data / "tokenizers" / "gpt2")), 1024)


@pytest.fixture(scope="module")
def gpt1(test_data: Path) -> Encoder:
    return Encoder(load_tokenizer(str(test_data / "tokenizers" / "gpt1")), 512)


@pytest.fixture(scope="module")
def char() -> Encoder:
    return Encoder(train_tokenizer("char", ["abc d\n"]), 6)


def parts(encoder: Encoder, context: str, continuation: str) -> tuple[list[str], list[str]]:
    """Return the tokens before and from `start`."""
    (request,) = encoder.requests([(context, continuation)])
    tokens = [str(encoder.tokenizer.convert_ids_to_tokens(int(one))) for one in request.ids]
    return tokens[: request.start], tokens[request.start :]


@pytest.mark.parametrize(
    ("context", "continuation", "before", "scored"),
    [
        ("The dog", " runs", ["The", "Ġdog"], ["Ġruns"]),
        ("The dog ", "runs", ["The", "Ġdog"], ["Ġruns"]),  # the space belongs to the word after it
        ("Question:\n", "Yes", ["Question", ":"], ["Ċ", "Yes"]),
        ("The dog", "s run", ["The"], ["Ġdogs", "Ġrun"]),  # a token across the border is the continuation's
        ("", "The dog", ["<|endoftext|>"], ["The", "Ġdog"]),
        (" ", "dog", ["<|endoftext|>"], ["Ġdog"]),
        ("Do", "gs", ["<|endoftext|>"], ["D", "ogs"]),  # no token of the context is left
        ("The <|endoftext|>", "go", ["The", "Ġ<", "|", "end", "of", "text", "|", ">"], ["go"]),
    ],
)
def test_what_gpt2_scores(gpt2: Encoder, context: str, continuation: str, before: list[str], scored: list[str]) -> None:
    assert parts(gpt2, context, continuation) == (before, scored)


@pytest.mark.parametrize(
    ("context", "continuation", "before", "scored"),
    [
        ("The dog", " runs", ["the</w>", "dog</w>"], ["runs</w>"]),
        ("The dog ", "runs", ["the</w>", "dog</w>"], ["runs</w>"]),
        ("The dog", "s", ["the</w>"], ["dogs</w>"]),
        ("", "The dog", ["\n</w>"], ["the</w>", "dog</w>"]),
        ("One\n", "two", ["one</w>"], ["\n</w>", "two</w>"]),
    ],
)
def test_what_gpt1_scores(gpt1: Encoder, context: str, continuation: str, before: list[str], scored: list[str]) -> None:
    assert parts(gpt1, context, continuation) == (before, scored)


def test_what_characters_score_and_what_is_cut(char: Encoder) -> None:
    assert parts(char, "ab", " c") == (["a", "b"], [" ", "c"])
    assert parts(char, "ab\n ", "c") == (["a", "b"], ["\n", " ", "c"])
    assert parts(char, "", "ab") == (["<|endoftext|>"], ["a", "b"])
    assert parts(char, "abcabc", "dd") == (["b", "c", "a", "b", "c"], ["d", "d"])  # 7 tokens, of which 6 are inputs
    assert parts(char, "abc", "dabcda") == (["c"], ["d", "a", "b", "c", "d", "a"])  # the longest that fits
    assert parts(char, "abc", "dabcdab") == (["c"], ["d", "a", "b", "c", "d", "a", "b"])  # for windows
    asked = char.requests([("abcabc", "dd"), ("abcab", "dd"), ("", "dabcda"), ("", "dabcdab")])
    assert [one.cut for one in asked] == [True, False, False, True]


@pytest.mark.parametrize(
    ("context", "continuation"),
    [("a", ""), ("a", " "), ("a\n", ""), ("", "\n")],  # the space that joins an ending does not count
)
def test_what_has_no_tokens_is_impossible(char: Encoder, context: str, continuation: str) -> None:
    (request,) = char.requests([(context, continuation)])
    assert (request.impossible, request.cut) == ("'' has no tokens", False)
    assert request.start == len(request.ids)


@pytest.mark.parametrize("dropped", ["", " ", "\a", " \ufeff"])
def test_what_gpt1_drops_is_impossible(gpt1: Encoder, dropped: str) -> None:
    for context in ("The dog", "The dog\n", ""):
        (request,) = gpt1.requests([(context, dropped)])
        assert request.impossible.endswith("has no tokens")
        assert request.start == len(request.ids)


def test_unknown_tokens_are_counted(char: Encoder) -> None:
    groups = [tuple(char.requests([("ab", "xy"), ("", "b?")])), (Request(np.array([0]), 1),)]
    assert char.count_unknown(groups) == (3, 8)
    assert char.count_unknown(groups, scored=True) == (3, 4)


def test_gpt2_knows_every_token_and_gpt1_does_not(gpt2: Encoder, gpt1: Encoder) -> None:
    texts = [("", "caf\u00e9 \u4f60")]
    assert gpt2.count_unknown([tuple(gpt2.requests(texts))])[0] == 0
    assert gpt1.count_unknown([tuple(gpt1.requests(texts))])[0] > 0


def test_choices_of_one_context_are_encoded_as_each_alone(gpt2: Encoder) -> None:
    pairs = [("It is", " so"), ("It is", "n't"), ("No", " so"), ("It is ", "so")]
    for together, pair in zip(gpt2.requests(pairs), pairs, strict=True):
        (alone,) = gpt2.requests([pair])
        assert together.start == alone.start
        np.testing.assert_array_equal(together.ids, alone.ids)


def test_shared_prefix() -> None:
    assert [shared_prefix(np.array([1, 2, 3]), np.array(other)) for other in ([], [2], [1, 2, 4], [1, 2, 3, 4])] == [
        *(0, 0, 2, 3)
    ]
