"""Streamed pieces are whole characters and add up to the decoded text."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from gptkit.decoding.text import Continuation, TextStream
from gptkit.decoding.text_model import TextPiece
from gptkit.generate.show import transcript

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, in GPT-2's alphabet."""
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(ALPHABET)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words joined by spaces: a token's text depends on the one before, as with GPT-1."""
    tokenizer = Tokenizer(models.WordLevel({"to": 0, "be": 1, "or": 2, "not": 3}, unk_token="not"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


BYTES = byte_tokenizer()
WORDS = word_tokenizer()


def ids_of(text: str) -> list[int]:
    return list(BYTES.encode(text, add_special_tokens=False))


def told(continuation: Continuation, text: str) -> list[str]:
    """Return the pieces emitted for a text, token by token, until it is cut."""
    pieces = []
    for token in ids_of(text):
        pieces.append(continuation.push(token))
        if continuation.is_cut:
            return pieces
    return [*pieces, continuation.end()]


def test_a_character_is_told_when_its_last_byte_came() -> None:
    stream = TextStream(BYTES)
    assert [stream.push(token) for token in ids_of("aé€")] == ["a", "", "é", "", "", "€"]
    assert [stream.push(token) for token in ids_of("\U0001f600")] == ["", "", "", "\U0001f600"]
    assert stream.end() == ""


@given(st.text(max_size=20), st.lists(st.integers(0, 255), max_size=40), st.booleans())
@settings(max_examples=25)
def test_pieces_add_up_whatever_the_bytes(prompt: str, ids: list[int], live: bool) -> None:
    continuation = Continuation(BYTES, ids_of(prompt), live=live)
    pieces = [continuation.push(token) for token in ids]
    assert live or not any(pieces)
    pieces.append(continuation.end())
    assert "".join(pieces) == continuation.text == BYTES.decode(ids)


def test_words_are_parted_as_in_the_whole() -> None:
    stream = TextStream(WORDS, [0, 1])
    assert [stream.push(token) for token in [2, 3, 0, 1]] == [" or", " not", " to", " be"]


@given(
    st.text(alphabet="ab\n€", max_size=30),
    st.lists(st.text(alphabet="ab\n€", min_size=1, max_size=4), min_size=1, max_size=3),
    st.booleans(),
)
@settings(max_examples=100)
def test_a_text_ends_before_the_first_stop_string(text: str, stops: list[str], live: bool) -> None:
    continuation = Continuation(BYTES, stops=stops, live=live)
    pieces = told(continuation, text)
    complete = [at + len(stop) for stop in stops if (at := text.find(stop)) >= 0]
    assert continuation.is_cut == bool(complete)
    read = text[: min(complete)] if complete else text  # no token is read after the first complete stop string
    places = [at for stop in stops if (at := read.find(stop)) >= 0]
    assert continuation.text == "".join(pieces) == text[: min(places, default=None)]


def test_what_may_begin_a_stop_string_waits() -> None:
    assert told(Continuation(BYTES, stops=["END", "\n\n"]), "a\nEN\n") == ["a", "", "\n", "", "EN", "\n"]
    assert told(Continuation(BYTES, stops=["END"]), "EEND of it") == ["", "E", "", ""]


@pytest.mark.parametrize(
    ("text", "sentences", "kept"),
    [
        (" One. Two! Three? Four.", 3, " One. Two! Three?"),
        ('He said "No." And (so.) it was... Then', 3, 'He said "No." And (so.) it was...'),
        ("3.5 is e.g. a number.", 1, "3.5 is e.g."),
        ("No end", 1, "No end"),
        ("At the end.", 1, "At the end."),
        ("A.\nB.\n", 1, "A."),
        ("他走了。她哭了。真的？！好", 2, "他走了。她哭了。"),
        ("他走了。她哭了。真的？！好", 3, "他走了。她哭了。真的？！"),
        ("他说：「走！」她没走。", 1, "他说：「走！」"),
        ("（他来了。）她说：“好。”\n", 2, "（他来了。）她说：“好。”"),
        ("圆周率是３．１４。它很长", 1, "圆周率是３．１４。"),
        ("वह गया। वह आई।", 1, "वह गया।"),
        ("هل جاء؟ نعم.", 1, "هل جاء؟"),
        ("他走了。", 1, "他走了。"),
    ],
)
def test_sentences_are_counted_by_their_ends_in_any_script(text: str, sentences: int, kept: str) -> None:
    continuation = Continuation(BYTES, sentences=sentences)
    assert "".join(told(continuation, text)) == continuation.text == kept
    assert continuation.is_cut == (kept != text)


@given(st.text(alphabet="aB3 .!?\u2026\"')]\u2019\u201d\u00bb\n,;:-(", max_size=40), st.integers(1, 4))
@settings(max_examples=150)
def test_text_with_white_space_between_sentences_is_cut_before_it(text: str, sentences: int) -> None:
    continuation = Continuation(BYTES, sentences=sentences)
    told(continuation, text)
    ends = [match.end() for match in re.finditer(r"""[.!?\u2026]["'\u2019\u201d\u00bb)\]]*(?=\s)""", text)]
    assert continuation.text == text[: ends[sentences - 1] if len(ends) >= sentences else None]


def pieces_of(texts: list[Continuation], *steps: tuple[int, int | None, bool]) -> Iterator[TextPiece]:
    """Yield the pieces for (row, token, whether it is the last), like a Generation."""
    for row, token, last in steps:
        piece = texts[row].push(token) if token is not None else ""
        yield TextPiece(row, piece + (texts[row].end() if last else ""), last)


@pytest.mark.parametrize("live", [True, False])
def test_several_samples_are_told_in_order(live: bool) -> None:
    texts = [Continuation(BYTES, ids_of("x"), live=live) for _ in range(3)]
    a, b, c, half = (*ids_of("abc"), ids_of("é")[0])
    pieces = pieces_of(
        texts,
        (0, a, False),
        (1, b, False),
        (2, c, True),
        (0, half, True),  # ends inside a character; then it is the second one's turn
        (1, None, True),
    )
    one, two, three = (f"{f' sample {number} ':=^80}\n" for number in (1, 2, 3))
    shown = list(transcript(pieces, "x", texts, live=live))
    if live:
        assert shown == [one + "x", "a", f"\ufffd\n{two}xb", f"\n{three}xc\n"]
    else:
        assert shown == [f"{one}xa\ufffd\n", f"{two}xb\n{three}xc\n"]
    assert [text.text for text in texts] == ["a\ufffd", "b", "c"]


@pytest.mark.parametrize("prompt", ["", "once"])
def test_one_sample_has_no_heading(prompt: str) -> None:
    texts = [Continuation(BYTES, ids_of(prompt))]
    pieces = pieces_of(texts, (0, *ids_of("!"), False), (0, None, True))
    assert "".join(transcript(pieces, prompt, texts, live=True)) == f"{prompt}!\n"
