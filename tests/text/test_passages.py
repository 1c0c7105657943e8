from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptkit.text import pieces as module
from gptkit.text.pieces import PASSAGE_BYTES, passages

TEXTS = st.text(alphabet=st.sampled_from("ab.é \n\t\r\u00a0\x1c\u2028"), max_size=300)


@pytest.fixture
def sixteen_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PASSAGE_BYTES", 16)


@pytest.mark.usefixtures("sixteen_bytes")
def test_lines_fill_a_passage_and_long_ones_are_cut_at_a_space() -> None:
    text = "one two\nthree\nfour five six seven eight\n\nend\n"
    assert list(passages(text, within_lines=True)) == ["one two\nthree", "\nfour five six", " seven eight", "\n\nend\n"]
    assert list(passages(text, within_lines=False)) == ["one two\nthree", "\nfour five six seven eight", "\n\nend\n"]


@pytest.mark.usefixtures("sixteen_bytes")
@given(TEXTS, st.booleans())
def test_passages_join_to_the_text_and_begin_with_white_space_behind_a_word(text: str, within_lines: bool) -> None:
    parts = list(passages(text, within_lines=within_lines))
    assert "".join(parts) == text
    assert not text.strip() or all(part.strip() for part in parts)
    for left, right in pairwise(parts):
        assert right[0] in " \t\n\r\v\f"
        assert not left[-1].isspace()
        assert within_lines or "\n" in right[: len(right) - len(right.lstrip())]


@pytest.mark.usefixtures("sixteen_bytes")
@settings(max_examples=50)
@given(TEXTS)
def test_only_what_has_no_place_to_cut_is_larger(text: str) -> None:
    for part in passages(text, within_lines=True):
        bare = part.rstrip()
        if len(bare.encode()) > 16:
            shorter = bare.encode()[:16].decode(errors="ignore")
            assert not any(a in " \t\n\r\v\f" and not b.isspace() for b, a in pairwise(shorter))


def test_an_empty_text_has_none_and_a_word_without_end_is_one() -> None:
    assert list(passages("", within_lines=True)) == []
    assert list(passages("x" * 5 * PASSAGE_BYTES, within_lines=True)) == ["x" * 5 * PASSAGE_BYTES]
