"""Short answers written by the model: CoQA's conversations and Natural Questions (GPT-2 paper, 3.5 and 3.8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from gptkit.scoring.protocols import Column, Evaluation, Generated, GeneratedProtocol, Items, Published
from gptkit.scoring.written_answers import best_of, exact_match, leaving_one_out, word_f1
from gptkit.tasks.coqa_files import coqa
from gptkit.tasks.natural_questions_files import natural_questions
from gptkit.text.examples import Example


def _turns(questions: Iterable[str], answers: Iterable[str]) -> str:
    return "".join(f"Q: {question}\nA: {answer}\n" for question, answer in zip(questions, answers, strict=True))


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0].strip()


def _column(
    score: Callable[[str, Sequence[str]], float], examples: Sequence[Example], texts: Sequence[Generated], field: int
) -> Column:
    """Return the score of each text's first line against the accepted answers in a field."""
    pairs = zip(examples, texts, strict=True)
    return np.array([score(_first_line(text.text), tuple(one.fields[field])) for one, text in pairs], dtype=np.float64)


def _conversation(example: Example) -> str:
    _, story, questions, answers, question, _ = example.fields
    return f"{story}\n\n{_turns(questions, answers)}Q: {question}\nA:"


def _coqa_items(examples: Sequence[Example], texts: Sequence[Generated]) -> Items:
    def official(score: Callable[[str, str], float]) -> Column:
        return _column(lambda answer, people: leaving_one_out(score, answer, people), examples, texts, field=5)

    columns = {"answer_f1": official(word_f1), "exact_match": official(exact_match)}
    domains = tuple(str(one.fields[0]) for one in examples)
    return Items(tuple(one.identifier for one in examples), columns, {"domain": domains})


def _question(example: Example) -> str:
    question, _, questions, answers = example.fields
    return f"{_turns(questions, answers)}Q: {question}\nA:"


def _open_items(examples: Sequence[Example], texts: Sequence[Generated]) -> Items:
    exact = _column(lambda answer, accepted: best_of(exact_match, answer, accepted), examples, texts, field=1)
    confidence = np.array([one.confidence for one in texts], dtype=np.float64)
    columns = {"exact_match": exact, "correct": exact, "confidence": confidence}
    return Items(tuple(one.identifier for one in examples), columns)


_COQA_PROTOCOL = GeneratedProtocol(
    "conversation",
    "the story, the turns so far with people's answers, then A:, greedy, cut at the line end; "
    "F1 over words as the official script takes it, each person left out in turn",
    ("answer_f1", "exact_match"),
    published=(Published("GPT-2 1542M", "answer_f1", 0.55, "Radford et al. 2019, section 3.5"),),
    chance=0.0,
    prompt=_conversation,
    items=_coqa_items,
    options={"greedy": True, "max_new_tokens": 32, "stop": ("\n",)},
)

COQA = Evaluation(
    name="coqa",
    about="questions of a conversation about a story",
    data="coqa-dev-v1.0.json",
    load=coqa,
    protocols=(_COQA_PROTOCOL,),
    size=7_983,
    texts=lambda example: (str(example.fields[1]), str(example.fields[4])),
)

_OPEN_PROTOCOL = GeneratedProtocol(
    "pairs",
    "after five questions with answers, greedy, cut at the line end; exact match with any accepted answer; "
    "confidence is the geometric mean of the probabilities of the tokens written",
    ("exact_match", "accuracy_top_1_percent", "accuracy_top_10_percent", "calibration_error"),
    published=tuple(
        Published("GPT-2 1542M", measure, value, "Radford et al. 2019, section 3.8")
        for measure, value in (("exact_match", 0.041), ("accuracy_top_1_percent", 0.631))
    ),
    chance=0.0,
    prompt=_question,
    items=_open_items,
    options={"greedy": True, "max_new_tokens": 32, "stop": ("\n",), "show_probs": True},
)

NATURAL_QUESTIONS = Evaluation(
    name="natural-questions",
    about="questions of a search engine, answered without a text",
    data="NQ-open.dev.jsonl, and NQ-open.train.jsonl beside it for the example pairs",
    load=natural_questions,
    protocols=(_OPEN_PROTOCOL,),
    size=3_610,
    texts=lambda example: (str(example.fields[0]),),
)
