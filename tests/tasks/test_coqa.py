"""CoQA: a turn is an example, with what was said before and the answers of all people, who are left out in turn."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from gptkit.errors import InputError
from gptkit.scoring.measures import measure
from gptkit.scoring.protocols import Generated, GeneratedProtocol
from gptkit.scoring.written_answers import exact_match, token_f1
from gptkit.tasks.benchmarks.coqa import COQA, coqa, leave_one_out
from gptkit.text.examples import Example


def said(*texts: str) -> list[dict[str, Any]]:
    return [{"input_text": text, "span_text": text, "turn_id": number} for number, text in enumerate(texts, 1)]


STORY = {
    "source": "wikipedia",
    "id": "s1",
    "filename": "x.txt",
    "story": "A cat lay in a barn.",
    "questions": said("Who lay there?", "Where?"),
    "answers": said("A cat", "In a barn"),
    "additional_answers": {"1": said("", "hay"), "0": said("cat", "barn")},
    "name": "x.txt",
}


def write(path: Path, *stories: Any) -> str:
    path.write_text(json.dumps({"version": "1.0", "data": stories}, indent=1))
    return str(path)


def test_a_turn_is_an_example(tmp_path: Path) -> None:
    write(tmp_path / "coqa-dev-v1.0.json", STORY)
    first, second = coqa(str(tmp_path)).examples
    assert len(first.fields) == len(COQA.fields)
    assert first.fields == ("wikipedia", "A cat lay in a barn.", (), (), "Who lay there?", ("A cat", "cat", ""))
    assert second.fields[2:5] == (("Who lay there?",), ("A cat",), "Where?")
    assert second.fields[5] == ("In a barn", "barn", "hay")
    assert (second.identifier, second.label) == ("s1 2", None)
    assert second.where == f"{tmp_path}/coqa-dev-v1.0.json:1, story 1, turn 2"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("story", None, r"'story' is missing \(.*:1, story 2\)"),
        ("questions", {}, r"'questions' is a JSON object, expected a JSON array \(.*:1, story 2\)"),
        ("answers", said("one"), r"1 answers to 2 questions \(.*:1, story 2\)"),
        ("answers", [{"input_text": 3}, {}], r"'input_text' is 3, not a string \(.*, story 2, answers 1\)"),
        ("answers", [{}, {}], r"no key 'input_text' \(keys: none\) \(.*, story 2, answers 1\)"),
        ("questions", [3], r"a turn is a JSON number, expected a JSON object \(.*, story 2, questions 1\)"),
        ("questions", said("", "Where?"), r"'question' is empty \(.*:1, story 2\)"),
        ("id", "s1", r"duplicate id 's1 1', first seen at .*story 1, turn 1 \(.*story 2, turn 1\)"),
    ],
)
def test_a_bad_story_is_told_with_its_number(tmp_path: Path, key: str, value: Any, message: str) -> None:
    other = copy.deepcopy(STORY) | {"id": "s2", key: value}
    with pytest.raises(InputError, match=message):
        coqa(write(tmp_path / "dev.json", STORY, other))


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "coqa-dev-v1.0.json"
    for content, message in (
        ('{"data": [}', r"not valid JSON: .*json:1"),
        ("[]", r"a JSON array, but an object is needed .*json:1"),
        ('{"data": []}', r"no question in this file .*json:1"),
        ('{"data": [7]}', r"a story is a JSON number.*json:1, story 1"),
        ('{"version": "1.0"}', r"no key 'data' \(keys: 'version'\) .*json:1"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            coqa(str(tmp_path))


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


def test_answers_without_spaces_are_compared_by_unicode_s_words() -> None:
    [protocol] = COQA.protocols
    assert isinstance(protocol, GeneratedProtocol)
    turn = Example(("cnn", "猫在谷仓里。", (), (), "在哪里？", ("在谷仓里", "谷仓里")), None, "x:1", "s 1")
    items = protocol.items([turn], [Generated("在谷仓\n", math.nan)])
    found = measure(protocol.measures, items)
    reason = "white space separates only 2 of the 7 Unicode words (UAX #29; each CJK character is one)"
    assert found["answer_f1"]["reason"] == reason
    # 3 of 3 and 4 characters, 2 of 3 and 3; without either person the other's
    assert found["unicode_answer_f1"]["value"] == pytest.approx((6 / 7 + 4 / 6) / 2)
    assert found["exact_match"]["value"] == 0
    russian = Example(("cnn", "Кот в сарае.", (), (), "Где?", ("в старом сарае",)), None, "x:2", "s 2")
    assert measure(protocol.measures, protocol.items([russian], [Generated("в сарае", math.nan)]))["answer_f1"][
        "value"
    ] == pytest.approx(4 / 5)


def test_coqa_leaves_out_each_person_in_turn() -> None:
    people = ["white", "in a barn", "barn"]
    # against each: 0, 2/3, 1; the best of the others is 1, 1 and 2/3
    assert leave_one_out(token_f1, "barn", people) == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert leave_one_out(exact_match, "barn", people) == pytest.approx(2 / 3)
    assert leave_one_out(token_f1, "white", ["white", "black"]) == pytest.approx(0.5)
    assert leave_one_out(token_f1, "white", ["white"]) == 1
