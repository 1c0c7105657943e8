"""CoQA's file: a turn an example, with what was said before and the answers of all people."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from gptkit.errors import InputError
from gptkit.tasks.benchmarks.question_answering import coqa


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
    assert first.fields == ("wikipedia", "A cat lay in a barn.", (), (), "Who lay there?", ("A cat", "cat", ""))
    assert second.fields[2:5] == (("Who lay there?",), ("A cat",), "Where?")
    assert second.fields[5] == ("In a barn", "barn", "hay")
    assert (second.identifier, second.label) == ("s1 2", None)
    assert second.where == f"{tmp_path}/coqa-dev-v1.0.json:1, story 1, turn 2"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("story", None, r"'story' is missing, not a text \(.*:1, story 2\)"),
        ("questions", {}, r"'questions' is a JSON object, where a JSON array belongs \(.*:1, story 2\)"),
        ("answers", said("one"), r"1 answers to 2 questions \(.*:1, story 2\)"),
        ("answers", [{"input_text": 3}, {}], r"'input_text' is 3, not a text \(.*, story 2, answers 1\)"),
        ("answers", [{}, {}], r"no 'input_text' here \(keys: none\) \(.*, story 2, answers 1\)"),
        ("questions", [3], r"a turn is a JSON number, where a JSON object belongs \(.*, story 2, questions 1\)"),
        ("questions", said("", "Where?"), r"the text 'question' is empty \(.*:1, story 2\)"),
        ("id", "s1", r"the id 's1 1' is there twice, first at .*story 1, turn 1 \(.*story 2, turn 1\)"),
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
        ("[]", r"a JSON array, where an object is needed .*json:1"),
        ('{"data": []}', r"no question in this file .*json:1"),
        ('{"data": [7]}', r"a story is a JSON number.*json:1, story 1"),
        ('{"version": "1.0"}', r"no 'data' here \(keys: 'version'\) .*json:1"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            coqa(str(tmp_path))
