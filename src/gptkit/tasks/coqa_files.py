"""CoQA's conversations: coqa-dev-v1.0.json, a list of stories with questions and the answers of several people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gptkit.errors import InputError
from gptkit.system.json_files import json_name, json_object
from gptkit.tasks.cells import text_of
from gptkit.tasks.forms import cell, find_form, refuse_repeated_examples, text_cell
from gptkit.tasks.reading import Loaded, loaded
from gptkit.tasks.rows import lines
from gptkit.text.examples import Example

FORMS = (("coqa-dev-v1.0.json",), ("coqa-dev*.json",), ("dev*.json",))
_FIX = 'CoQA\'s file is one JSON object {"version": "1.0", "data": [...]}; fetch it again'


def coqa(data: str | None) -> Loaded:
    """Return an example a turn: (domain, story, earlier questions, their answers, question, accepted answers).

    The first of the accepted answers is that of the conversation itself, and it is what later turns see. UsageError
    without data; InputError, with the file and the story's number, for whatever is not as it should be.
    """
    [path] = find_form("coqa", data, FORMS, source="stanfordnlp.github.io/coqa")
    content = json_object("\n".join(text for _, text in lines(path)), f"{path}:1", _FIX)
    stories = _list(content, "data", f"{path}:1")
    examples = [one for number, story in enumerate(stories, 1) for one in _turns(story, f"{path}:1, story {number}")]
    if not examples:
        raise InputError("no question in this file", where=f"{path}:1", fix=_FIX)
    refuse_repeated_examples(examples)
    return loaded(examples, ())


def _turns(story: Any, where: str) -> Iterator[Example]:
    _require(story, dict, "a story", where)
    name, text = text_cell(story, "id", where), text_cell(story, "story", where)
    domain = text_cell(story, "source", where)
    questions = [text_of(one, "question", where) for one in _said(story, "questions", where)]
    others = cell(story, "additional_answers", where) if "additional_answers" in story else {}
    _require(others, dict, "'additional_answers'", where)
    people = [_said(story, "answers", where), *(_said(others, key, where) for key in sorted(others))]
    for answers in people:
        if len(answers) != len(questions):
            message = f"{len(answers)} answers to {len(questions)} questions"
            raise InputError(message, where=where, fix="every person answers every question; fetch the file again")
    for turn, question in enumerate(questions):
        before = tuple(questions[:turn]), tuple(people[0][:turn])
        accepted = tuple(answers[turn] for answers in people)
        place = f"{where}, turn {turn + 1}"
        yield Example((domain, text, *before, question, accepted), None, place, f"{name} {turn + 1}")


def _said(holder: Mapping[str, Any], key: str, where: str) -> list[str]:
    """Return the texts of a list of turns; an answer may be empty."""
    texts = []
    for number, turn in enumerate(_list(holder, key, where), 1):
        place = f"{where}, {key} {number}"
        _require(turn, dict, "a turn", place)
        text = cell(turn, "input_text", place)
        texts.append("" if text == "" else text_of(text, "input_text", place))
    return texts


def _list(holder: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = _require(cell(holder, key, where), list, repr(key), where)
    assert isinstance(found, list)
    return found


def _require(value: Any, kind: type, what: str, where: str) -> Any:
    if not isinstance(value, kind):
        message = f"{what} is a JSON {json_name(value)}, where a JSON {json_name(kind())} belongs"
        raise InputError(message, where=where, fix=_FIX)
    return value
