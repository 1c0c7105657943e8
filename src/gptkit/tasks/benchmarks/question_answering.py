"""Questions answered in writing, with and without a text (GPT-2 paper, sections 3.5 and 3.8).

CoQA, questions of a conversation about a story, is read from coqa-dev-v1.0.json: a list of stories with questions and
the answers of several people. Natural Questions in their open form (Lee et al. 2019) are

NQ-open.dev.jsonl      {"question": "...", "answer": ["...", ...]} a line; the hub's nq_open as parquet likewise
NQ-open.train.jsonl    beside it: its first pairs are shown to the model

Answers are compared with the accepted ones by SQuAD's normalisation: exact match, and F1 over words.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from gptkit.errors import InputError
from gptkit.scoring.protocols import Column, Generated, GeneratedProtocol, Items, Published
from gptkit.system.reading import json_name, json_object
from gptkit.tasks.files import (
    cell,
    checked_text,
    find_files,
    first_whole,
    lines,
    open_rows,
    refuse_duplicates,
    text_cell,
)
from gptkit.tasks.task import Evaluation, Loaded, loaded
from gptkit.text.examples import Example

COQA_FILES = (("coqa-dev-v1.0.json",), ("coqa-dev*.json",), ("dev*.json",))
NQ_FILES = (
    *(("NQ-open.dev.jsonl",), ("nq*open*dev*.jsonl",)),
    *(("validation*.parquet",), ("validation*.jsonl",), ("dev.jsonl",)),
)
NQ_TRAIN_FILES = (("NQ-open.train.jsonl",), ("nq*open*train*.jsonl",), ("train*.parquet",), ("train*.jsonl",))
# Ours, in the style of the data: what people type into a search box, and the shortest answer.
DEFAULT_FEW_SHOT: tuple[tuple[str, str], ...] = (
    ("what is the capital of japan", "Tokyo"),
    ("who wrote the play hamlet", "William Shakespeare"),
    ("how many legs does a spider have", "eight"),
    ("when did the first world war begin", "1914"),
    ("what is the chemical symbol for gold", "Au"),
)
_COQA_FIX = 'CoQA\'s file is one JSON object {"version": "1.0", "data": [...]}; fetch it again'
_NQ_FIX = 'name a .jsonl of {"question", "answer"}'
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def coqa(data: str | None) -> Loaded:
    """Return an example a turn: (domain, story, earlier questions, their answers, question, accepted answers).

    The first of the accepted answers is that of the conversation itself, and it is what later turns see. UsageError
    without data; InputError, with the file and the story's number, for whatever is not as it should be.
    """
    [path] = find_files("coqa", data, COQA_FILES, source="stanfordnlp.github.io/coqa")
    content = json_object("\n".join(text for _, text in lines(path)), f"{path}:1", _COQA_FIX)
    stories = _listed(content, "data", f"{path}:1")
    examples = [turn for number, story in enumerate(stories, 1) for turn in _turns(story, f"{path}:1, story {number}")]
    if not examples:
        raise InputError("no question in this file", where=f"{path}:1", fix=_COQA_FIX)
    refuse_duplicates(examples)
    return loaded(examples, ())


def _turns(story: Any, where: str) -> Iterator[Example]:
    _require(story, dict, "a story", where)
    name, text = text_cell(story, "id", where), text_cell(story, "story", where)
    domain = text_cell(story, "source", where)
    questions = [checked_text(text, "question", where) for text in _said(story, "questions", where)]
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
    for number, turn in enumerate(_listed(holder, key, where), 1):
        place = f"{where}, {key} {number}"
        _require(turn, dict, "a turn", place)
        text = cell(turn, "input_text", place)
        texts.append("" if text == "" else checked_text(text, "input_text", place))
    return texts


def _listed(holder: Mapping[str, Any], key: str, where: str) -> list[Any]:
    return list(_require(cell(holder, key, where), list, repr(key), where))


def _require(value: Any, kind: type, what: str, where: str) -> Any:
    if not isinstance(value, kind):
        message = f"{what} is a JSON {json_name(value)}, where a JSON {json_name(kind())} belongs"
        raise InputError(message, where=where, fix=_COQA_FIX)
    return value


def natural_questions(data: str | None) -> Loaded:
    """Return the examples (question, accepted answers, shown questions, their answers).

    What is shown comes from the train file, else it is five pairs of ours: a note says so. UsageError without data;
    InputError, with file and line, for whatever is not as it should be.
    """
    source = "google-research-datasets/natural-questions, nq_open"
    [path] = find_files("natural-questions", data, NQ_FILES, source=source)
    rows = [(*_nq_row(row, where), where) for where, row in open_rows(path, fix=_NQ_FIX)]
    few_shot, notes = DEFAULT_FEW_SHOT, ["no train file beside it: the model is shown five pairs of gptkit's own"]
    if train := first_whole([path.parent], NQ_TRAIN_FILES):
        first = [_nq_row(row, where) for where, row in islice(open_rows(train[1][0], fix=_NQ_FIX), len(few_shot))]
        few_shot, notes = tuple((question, answers[0]) for question, answers in first), []
    shown = tuple(question for question, _ in few_shot), tuple(answer for _, answer in few_shot)
    examples = [
        Example((question, accepted, *shown), None, where, str(number))
        for number, (question, accepted, where) in enumerate(rows)
    ]
    return loaded(examples, notes)


def _nq_row(row: dict[str, Any], where: str) -> tuple[str, tuple[str, ...]]:
    answers = cell(row, "answer", where)
    if not isinstance(answers, list) or not answers:
        fix = '"answer" is a list of at least one text'
        raise InputError("'answer' is no list of texts", where=where, fix=fix)
    return text_cell(row, "question", where), tuple(checked_text(answer, "answer", where) for answer in answers)


def normalised(answer: str) -> str:
    """Return an answer in lower case without ASCII punctuation, articles and superfluous white space.

    SQuAD's rule (Rajpurkar et al. 2016, section 6.1), which CoQA and Natural Questions' open form took over.
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(answer: str, accepted: str) -> float:
    """Return 1 where both are the same once normalised, else 0."""
    return float(normalised(answer) == normalised(accepted))


def token_f1(answer: str, accepted: str) -> float:
    """Return the harmonic mean of precision and recall of the normalised words; two empty answers agree."""
    given, wanted = normalised(answer).split(), normalised(accepted).split()
    if not given or not wanted:
        return float(given == wanted)
    same = sum((Counter(given) & Counter(wanted)).values())
    return 2 * same / (len(given) + len(wanted))


def max_over_references(score: Callable[[str, str], float], answer: str, accepted: Sequence[str]) -> float:
    """Return the score against the nearest accepted answer."""
    return max(score(answer, reference) for reference in accepted)


def leave_one_out(score: Callable[[str, str], float], answer: str, people: Sequence[str]) -> float:
    """Return the score as CoQA's official script takes it: the mean, over people, of the best among all the others.

    So a model and a person, who cannot be compared with themselves, face equally many answers. An only answer counts
    as it is.
    """
    if len(people) == 1:
        return score(answer, people[0])
    scores = [score(answer, person) for person in people]
    others = (max(scores[:left] + scores[left + 1 :]) for left in range(len(scores)))
    return sum(others) / len(scores)


def _prompt(questions: Iterable[str], answers: Iterable[str], question: str) -> str:
    """Return questions with answers as lines of a prompt, and the question that is to be answered."""
    turns = [f"Q: {asked}\nA: {answer}\n" for asked, answer in zip(questions, answers, strict=True)]
    return "".join([*turns, f"Q: {question}\nA:"])


def answer_column(
    score: Callable[[str, Sequence[str]], float], examples: Sequence[Example], texts: Sequence[Generated], field: int
) -> Column:
    """Return the score of each text's first line against the accepted answers in a field of its example."""
    scores = [
        score(text.text.split("\n", 1)[0].strip(), tuple(example.fields[field]))
        for example, text in zip(examples, texts, strict=True)
    ]
    return np.array(scores, dtype=np.float64)


def _coqa_prompt(example: Example) -> str:
    _, story, questions, answers, question, _ = example.fields
    return f"{story}\n\n{_prompt(questions, answers, str(question))}"


def _nq_prompt(example: Example) -> str:
    question, _, questions, answers = example.fields
    return _prompt(questions, answers, str(question))


def _coqa_items(examples: Sequence[Example], texts: Sequence[Generated]) -> Items:
    def official(score: Callable[[str, str], float]) -> Column:
        return answer_column(lambda answer, people: leave_one_out(score, answer, people), examples, texts, field=5)

    columns = {"answer_f1": official(token_f1), "exact_match": official(exact_match)}
    domains = tuple(str(example.fields[0]) for example in examples)
    return Items(tuple(example.identifier for example in examples), columns, {"domain": domains})


def _nq_items(examples: Sequence[Example], texts: Sequence[Generated]) -> Items:
    def is_accepted(answer: str, accepted: Sequence[str]) -> float:
        return max_over_references(exact_match, answer, accepted)

    exact = answer_column(is_accepted, examples, texts, field=1)
    confidence = np.array([text.confidence for text in texts], dtype=np.float64)
    columns = {"exact_match": exact, "correct": exact, "confidence": confidence}
    return Items(tuple(example.identifier for example in examples), columns)


_CONVERSATION = GeneratedProtocol(
    "conversation",
    "the story, the turns so far with people's answers, then A:, greedy, cut at the line end; "
    "F1 over words as the official script takes it, each person left out in turn",
    ("answer_f1", "exact_match"),
    published=(Published("GPT-2 1542M", "answer_f1", 0.55, "Radford et al. 2019, section 3.5"),),
    chance=0.0,
    prompt=_coqa_prompt,
    items=_coqa_items,
    options={"greedy": True, "max_new_tokens": 32, "stop": ("\n",)},
)

COQA = Evaluation(
    name="coqa",
    about="questions of a conversation about a story",
    data="coqa-dev-v1.0.json",
    load=coqa,
    protocols=(_CONVERSATION,),
    size=7_983,
    texts=lambda example: (str(example.fields[1]), str(example.fields[4])),
)
_PAIRS = GeneratedProtocol(
    "pairs",
    "after five questions with answers, greedy, cut at the line end; exact match with any accepted answer; "
    "confidence is the geometric mean of the probabilities of the tokens written",
    ("exact_match", "accuracy_top_1_percent", "accuracy_top_10_percent", "calibration_error"),
    published=tuple(
        Published("GPT-2 1542M", measure, value, "Radford et al. 2019, section 3.8")
        for measure, value in (("exact_match", 0.041), ("accuracy_top_1_percent", 0.631))
    ),
    chance=0.0,
    prompt=_nq_prompt,
    items=_nq_items,
    options={"greedy": True, "max_new_tokens": 32, "stop": ("\n",), "show_probs": True},
)

NATURAL_QUESTIONS = Evaluation(
    name="natural-questions",
    about="questions of a search engine, answered without a text",
    data="NQ-open.dev.jsonl, and NQ-open.train.jsonl beside it for the example pairs",
    load=natural_questions,
    protocols=(_PAIRS,),
    size=3_610,
    texts=lambda example: (str(example.fields[0]),),
)

BENCHMARKS = (COQA, NATURAL_QUESTIONS)
