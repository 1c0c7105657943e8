"""Conversations and open questions: what the model reads, and what of its text is scored."""

from __future__ import annotations

import math

import pytest

from gptkit.scoring.protocols import Generated, GeneratedProtocol
from gptkit.tasks.benchmarks.question_answering import COQA, NATURAL_QUESTIONS
from gptkit.text.examples import Example


def test_a_turn_sees_the_story_and_the_answers_that_people_gave() -> None:
    [protocol] = COQA.protocols
    assert isinstance(protocol, GeneratedProtocol)
    fields = ("cnn", "A cat lay in a barn.", ("Who?", "Old?"), ("A cat", "no"), "Where?", ("in a barn", "barn", "hay"))
    turn = Example(fields, None, "x:1, story 1, turn 3", "s 3")
    assert protocol.prompt(turn) == "A cat lay in a barn.\n\nQ: Who?\nA: A cat\nQ: Old?\nA: no\nQ: Where?\nA:"
    items = protocol.items([turn], [Generated(" The barn.\nQ: What?", math.nan)])
    # F1 with each person: 2/3, 1, 0; without each in turn the best is 1, 2/3, 1
    assert items.columns["answer_f1"].tolist() == [pytest.approx((1 + 2 / 3 + 1) / 3)]
    assert items.columns["exact_match"].tolist() == [pytest.approx(2 / 3)]
    assert items.groups == {"domain": ("cnn",)}


def test_an_open_answer_is_right_or_wrong_with_its_confidence() -> None:
    [protocol] = NATURAL_QUESTIONS.protocols
    assert isinstance(protocol, GeneratedProtocol)
    asked = [
        Example(("who sang it", ("The Who", "Who"), ("when", "where"), ("1914", "Paris")), None, "x:1", str(number))
        for number in range(3)
    ]
    assert protocol.prompt(asked[0]) == "Q: when\nA: 1914\nQ: where\nA: Paris\nQ: who sang it\nA:"
    texts = [Generated(" the who\n\nQ:", 0.75), Generated("Queen", 0.5), Generated("", 0.0)]
    items = protocol.items(asked, texts)
    assert items.columns["exact_match"].tolist() == items.columns["correct"].tolist() == [1, 0, 0]
    assert items.columns["confidence"].tolist() == [0.75, 0.5, 0.0]
