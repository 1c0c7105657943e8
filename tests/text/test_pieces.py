from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptkit.text import pieces
from gptkit.text.pieces import cut

TEXTS = st.text(alphabet=st.sampled_from("ab.é \n\t\r\u00a0\x1c\u2028"), max_size=300)


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "TARGET_CHARACTERS", 16)
    monkeypatch.setattr(pieces, "LIMIT_CHARACTERS", 48)


def chunks_of(text: str, size: int) -> Iterator[str]:
    return (text[i : i + size] for i in range(0, len(text), size))


@given(TEXTS, st.integers(1, 100))
def test_pieces_join_to_the_text_whatever_its_chunks(text: str, size: int) -> None:
    parts = list(cut([text]))
    assert "".join(parts) == text
    assert list(cut(chunks_of(text, size))) == parts
    assert max(map(len, parts)) <= pieces.LIMIT_CHARACTERS


@given(TEXTS)
def test_a_cut_lies_before_white_space_that_follows_a_non_space(text: str) -> None:
    parts = list(cut([text]))
    for left, right in pairwise(parts):
        exact = right[0] in " \t\n\r\v\f" and not left[-1].isspace()
        assert exact or len(left) == pieces.LIMIT_CHARACTERS


@given(st.lists(st.integers(1, 15), max_size=40))
def test_a_cut_lies_at_a_line_end_wherever_there_is_one(lengths: list[int]) -> None:
    parts = list(cut(["".join("x y"[: 1 + n % 3] * 5 + "\n" for n in lengths)]))
    assert all(part.lstrip(" ").startswith("\n") for part in parts[1:])


def test_the_nearest_line_end_comes_before_the_last_space() -> None:
    assert list(cut(["a" * 20 + " b" * 10 + "\n" + "c" * 30])) == ["a" * 20 + " b" * 10, "\n" + "c" * 30]
    assert list(cut(["a b " * 20])) == ["a b " * 11 + "a b", " " + "a b " * 8]
    assert list(cut(["a" * 100])) == ["a" * 48, "a" * 48, "a" * 4]
    assert list(cut([])) == list(cut([""])) == [""]
