"""CoQA: questions in a conversation about a story (GPT-2 paper, section 3.5).

coqa-dev-v1.0.json is a list of stories with questions and several people's answers. A model's answer is compared with
them by exact match and by F1 over words, after SQuAD's normalization.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from gptkit.errors import InputError
from gptkit.scoring.protocols import Column, Generated, GeneratedProtocol, Items, Published
from gptkit.scoring.written_answers import answer_column, exact_match, normalized, question_prompt, token_f1
from gptkit.system.reading import json_name, json_object
from gptkit.tasks.files import cells, checked_text, find_files, lines, refuse_duplicate_ids, text_cells
from gptkit.tasks.task import Evaluation, Loaded, loaded
from gptkit.text.examples import Example
from gptkit.text.words import unseparated, words_of

FILES = (("coqa-dev-v1.0.json",), ("coqa-dev*.json",), ("dev*.json",))
_FIX = 'CoQA\'s file is one JSON object {"version": "1.0", "data": [...]}; fetch it again'


def coqa(data: str | None) -> Loaded:
    """Return one example per turn: (domain, story, earlier questions, their answers, question, accepted answers).

    The first accepted answer is the one given in the conversation, which later turns see. UsageError without data;
    InputError, with the file and the story's number, for a bad file.
    """
    [path] = find_files("coqa", data, FILES, source="stanfordnlp.github.io/coqa")
    content = json_object("\n".join(text for _, text in lines(path)), f"{path}:1", _FIX)
    stories = _listed(content, "data", f"{path}:1")
    examples = [turn for number, story in enumerate(stories, 1) for turn in _turns(story, f"{path}:1, story {number}")]
    if not examples:
        raise InputError("no question in this file", where=f"{path}:1", fix=_FIX)
    refuse_duplicate_ids(examples)
    return loaded(examples)


def _turns(story: Any, where: str) -> Iterator[Example]:
    _require(story, dict, "a story", where)
    name, text, domain = text_cells(story, where, "id", "story", "source")
    questions = [checked_text(text, "question", where) for text in _said(story, "questions", where)]
    others = story.get("additional_answers", {})
    _require(others, dict, "'additional_answers'", where)
    people = [_said(story, "answers", where), *(_said(others, key, where) for key in sorted(others))]
    for answers in people:
        if len(answers) != len(questions):
            message = f"{len(answers)} answers to {len(questions)} questions"
            raise InputError(message, where=where, fix="fetch the file again")
    for turn, question in enumerate(questions):
        before = tuple(questions[:turn]), tuple(people[0][:turn])
        accepted = tuple(answers[turn] for answers in people)
        place = f"{where}, turn {turn + 1}"
        yield Example((domain, text, *before, question, accepted), None, place, f"{name} {turn + 1}")


def _said(holder: Mapping[str, Any], key: str, where: str) -> list[str]:
    """Return the texts of a list of turns; an answer may be empty."""
    texts = []
    for number, turn in enumerate(_listed(holder, key, where), 1):
        place = f"{where}, {key} {number}"
        _require(turn, dict, "a turn", place)
        [text] = cells(turn, place, "input_text")
        texts.append("" if text == "" else checked_text(text, "input_text", place))
    return texts


def _listed(holder: Mapping[str, Any], key: str, where: str) -> list[Any]:
    [turns] = cells(holder, where, key)
    return list(_require(turns, list, repr(key), where))


def _require(value: Any, kind: type, what: str, where: str) -> Any:
    if not isinstance(value, kind):
        message = f"{what} is a JSON {json_name(value)}, expected a JSON {json_name(kind())}"
        raise InputError(message, where=where, fix=_FIX)
    return value


def leave_one_out(score: Callable[[str, str], float], answer: str, people: Sequence[str]) -> float:
    """Return the score of CoQA's official script: leave out each person in turn, and average the best of the rest.

    So a model is compared with as many answers as a person, who is not compared with themselves. With a single answer
    nothing is left out.
    """
    if len(people) == 1:
        return score(answer, people[0])
    scores = [score(answer, person) for person in people]
    others = (max(scores[:left] + scores[left + 1 :]) for left in range(len(scores)))
    return sum(others) / len(scores)


def _prompt(example: Example) -> str:
    _, story, questions, answers, question, _ = example.fields
    return f"{story}\n\n{question_prompt(questions, answers, str(question))}"


def _items(examples: Sequence[Example], texts: Sequence[Generated]) -> Items:
    def official(score: Callable[[str, str], float]) -> Column:
        return answer_column(lambda answer, people: leave_one_out(score, answer, people), examples, texts, field=5)

    columns, undefined = {"answer_f1": official(token_f1), "exact_match": official(exact_match)}, {}
    accepted = [normalized(answer) for example in examples for answer in example.fields[5]]
    if reason := unseparated(sum(len(answer.split()) for answer in accepted), accepted):
        undefined["answer_f1"] = reason
        columns["unicode_answer_f1"] = official(partial(token_f1, split=words_of))
    domains = tuple(str(example.fields[0]) for example in examples)
    identifiers = tuple(example.identifier for example in examples)
    return Items(identifiers, columns, {"domain": domains}, undefined=undefined)


_CONVERSATION = GeneratedProtocol(
    "conversation",
    "the story, the turns so far with human answers, then A:; greedy, up to the end of the line; "
    "F1 over words as in the official script, leaving out each human answer in turn",
    ("answer_f1", "exact_match"),
    published=(Published("GPT-2 1542M", "answer_f1", 0.55, "GPT-2 paper, section 3.5"),),
    chance=0.0,
    prompt=_prompt,
    items=_items,
    options={"greedy": True, "max_new_tokens": 32, "stop": ("\n",)},
)

COQA = Evaluation(
    "coqa",
    coqa,
    (_CONVERSATION,),
    texts=lambda example: (str(example.fields[1]), str(example.fields[4])),
    fields=("source", "story", "earlier question", "earlier answer", "question", "accepted answer"),
)

BENCHMARKS = (COQA,)
