"""Streamed pieces are whole characters and add up to the decoded text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from gptkit.generation.decoding import Step
from gptkit.generation.text import TextStream, Transcript

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, in GPT-2's alphabet."""
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(ALPHABET)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, joined by spaces: a token's text depends on the one before, as with GPT-1's."""
    tokenizer = Tokenizer(models.WordLevel({"to": 0, "be": 1, "or": 2, "not": 3}, unk_token="not"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


BYTES = byte_tokenizer()
WORDS = word_tokenizer()


def ids_of(text: str) -> list[int]:
    return list(BYTES.encode(text, add_special_tokens=False))


def test_a_character_is_told_when_its_last_byte_came() -> None:
    stream = TextStream(BYTES)
    assert [stream.push(token) for token in ids_of("aé€")] == ["a", "", "é", "", "", "€"]
    assert [stream.push(token) for token in ids_of("\U0001f600")] == ["", "", "", "\U0001f600"]
    assert stream.end() == ""
    assert stream.text == "aé€\U0001f600"


@given(st.text(max_size=20), st.lists(st.integers(0, 255), max_size=40))
@settings(max_examples=25, deadline=None)
def test_pieces_add_up_whatever_the_bytes(prompt: str, ids: list[int]) -> None:
    stream = TextStream(BYTES, ids_of(prompt))
    pieces = [stream.push(token) for token in ids]
    pieces.append(stream.end())
    assert "".join(pieces) == stream.text == BYTES.decode(ids)


def test_words_are_parted_as_in_the_whole() -> None:
    stream = TextStream(WORDS, [0, 1])
    assert [stream.push(token) for token in [2, 3, 0, 1]] == [" or", " not", " to", " be"]


def test_several_samples_are_told_in_order() -> None:
    prompts = ["x", "y", ""]
    transcript = Transcript(BYTES, prompts, [ids_of(prompt) for prompt in prompts])
    a, b, c, half = (*ids_of("abc"), ids_of("é")[0])
    told = [
        transcript.open(),
        transcript.add(Step(0, a, None)),
        transcript.add(Step(1, b, None)),
        transcript.add(Step(2, c, "length")),
        transcript.add(Step(0, half, "length")),  # ends inside a character; then it is the second one's turn
        transcript.add(Step(1, None, "stop")),
    ]
    headings = [f"{f' sample {number} ':=^80}\n" for number in (1, 2, 3)]
    assert told == [headings[0] + "x", "a", "", "", f"\ufffd\n{headings[1]}yb", f"\n{headings[2]}c\n"]
    assert [stream.text for stream in transcript.streams] == ["a\ufffd", "b", "c"]


@pytest.mark.parametrize("prompt", ["", "once"])
def test_one_sample_has_no_heading(prompt: str) -> None:
    transcript = Transcript(BYTES, [prompt], [ids_of(prompt)])
    told = transcript.open() + transcript.add(Step(0, ids_of("!")[0], None)) + transcript.add(Step(0, None, "stop"))
    assert told == f"{prompt}!\n"
