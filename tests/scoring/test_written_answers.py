"""Answers are normalized and compared as in SQuAD's official script."""

from __future__ import annotations

import pytest

from gptkit.scoring.written_answers import normalized, token_f1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The  cat's\that!", "cats hat"),
        ("A-Team", "ateam"),  # punctuation is removed before articles
        ("an apple a day", "apple day"),
        ("theatre another", "theatre another"),
        ("U.S.", "us"),
        ("the", ""),
        ("l’été", "l’été"),  # only ASCII punctuation
    ],
)
def test_an_answer_is_normalized_as_squad_does_it(answer: str, expected: str) -> None:
    assert normalized(answer) == expected


def test_f1_counts_each_word_as_often_as_both_have_it() -> None:
    assert token_f1("the red car", "red cars") == pytest.approx(0.5)
    assert token_f1("no no no", "no no yes") == pytest.approx(2 / 3)
    assert token_f1("barn", "in a barn") == pytest.approx(2 / 3)  # precision 1, recall 1/2: `a` does not count
    assert token_f1("cat", "dog") == 0
    assert token_f1("the", "") == 1  # both are empty after normalization
    assert token_f1("", "cat") == token_f1("cat", "a") == 0
