"""Answers are normalised and scored as the official scripts of SQuAD and CoQA do it."""

from __future__ import annotations

import pytest

from gptkit.tasks.benchmarks.question_answering import (
    exact_match,
    leave_one_out,
    max_over_references,
    normalised,
    token_f1,
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The  cat's\that!", "cats hat"),
        ("A-Team", "ateam"),  # punctuation goes before articles are looked for
        ("an apple a day", "apple day"),
        ("theatre another", "theatre another"),
        ("U.S.", "us"),
        ("the", ""),
        ("l’été", "l’été"),  # ASCII's punctuation alone
    ],
)
def test_an_answer_is_normalised_as_squad_does_it(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


def test_f1_counts_each_word_as_often_as_both_have_it() -> None:
    assert token_f1("the red car", "red cars") == pytest.approx(0.5)
    assert token_f1("no no no", "no no yes") == pytest.approx(2 / 3)
    assert token_f1("barn", "in a barn") == pytest.approx(2 / 3)  # precision 1, recall 1/2: `a` is no word
    assert token_f1("cat", "dog") == 0
    assert token_f1("the", "") == 1  # both are empty once normalised
    assert token_f1("", "cat") == token_f1("cat", "a") == 0


def test_exact_match_takes_the_nearest_answer() -> None:
    assert max_over_references(exact_match, "The Beatles.", ["Wings", "beatles"]) == 1
    assert max_over_references(exact_match, "Beatle", ["Wings", "beatles"]) == 0


def test_coqa_leaves_out_each_person_in_turn() -> None:
    people = ["white", "in a barn", "barn"]
    # against each: 0, 2/3, 1; the best of the others is 1, 1 and 2/3
    assert leave_one_out(token_f1, "barn", people) == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert leave_one_out(exact_match, "barn", people) == pytest.approx(2 / 3)
    assert leave_one_out(token_f1, "white", ["white", "black"]) == pytest.approx(0.5)
    assert leave_one_out(token_f1, "white", ["white"]) == 1
