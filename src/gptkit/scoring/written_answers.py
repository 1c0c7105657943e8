"""Score generated text: sentence splitting, SQuAD's exact match and word F1, and the libraries of the `eval` extra."""

from __future__ import annotations

import importlib
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gptkit.errors import UsageError
from gptkit.scoring.protocols import Column, Generated
from gptkit.text.examples import Example
from gptkit.text.pieces import CLOSING, UNSPACED_END

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

# The end of a sentence with closing quotes and brackets, or a line end.
_END = re.compile(rf"[.!?\u2026]+{CLOSING}*(?=\s|$)|{UNSPACED_END}|\n")
_WORD_BEFORE = re.compile(r"[\w.]*$")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")  # J, U.S, e.g
_TITLES = frozenset(
    [
        *("mr", "mrs", "ms", "dr", "prof", "rev", "hon", "st", "sr", "jr", "no", "vs", "mme", "mlle"),
        *("gen", "sen", "rep", "gov", "lt", "col", "sgt", "capt"),
    ]
)


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, stripped of white space.

    A sentence ends after . ! ? or … before white space, after 。 or its kin, at a line end, but not after the period
    of a title (Mr.) or of single letters (J., U.S.), nor before a lower-case letter.
    """
    found, begin = [], 0
    for end in _END.finditer(text):
        if not _is_within(text, begin, end):
            found.append(text[begin : end.end()].strip())
            begin = end.end()
    found.append(text[begin:].strip())
    return [sentence for sentence in found if sentence]


def _is_within(text: str, begin: int, end: re.Match[str]) -> bool:
    if end[0] != ".":
        return False
    word = _WORD_BEFORE.search(text, begin, end.start())
    before = word[0] if word else ""
    if before.lower() in _TITLES or _INITIALS.fullmatch(before):
        return True
    following = text[end.end() :].lstrip(" \t")[:1] if end.end() < len(text) else ""
    return following.islower()


def normalized(answer: str) -> str:
    """Return an answer in lower case, without ASCII punctuation, articles and redundant white space.

    This is SQuAD's rule (Rajpurkar et al. 2016, section 6.1), which CoQA and open Natural Questions adopted.
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(answer: str, accepted: str) -> float:
    """Return 1 if both are the same after normalization, else 0."""
    return float(normalized(answer) == normalized(accepted))


def token_f1(answer: str, accepted: str, split: Callable[[str], list[str]] = str.split) -> float:
    """Return the harmonic mean of precision and recall of the normalized words; two empty answers get 1."""
    given, wanted = split(normalized(answer)), split(normalized(accepted))
    if not given or not wanted:
        return float(given == wanted)
    same = sum((Counter(given) & Counter(wanted)).values())
    return 2 * same / (len(given) + len(wanted))


def question_prompt(questions: Iterable[str], answers: Iterable[str], question: str) -> str:
    """Return a prompt of questions with answers, line by line, that ends in the question to answer."""
    turns = [f"Q: {asked}\nA: {answer}\n" for asked, answer in zip(questions, answers, strict=True)]
    return "".join([*turns, f"Q: {question}\nA:"])


def answer_column(
    score: Callable[[str, Sequence[str]], float], examples: Sequence[Example], texts: Sequence[Generated], field: int
) -> Column:
    """Return the score of each text's first line against the accepted answers in a field of its example (item,)."""
    scores = [
        score(text.text.split("\n", 1)[0].strip(), tuple(example.fields[field]))
        for example, text in zip(examples, texts, strict=True)
    ]
    return np.array(scores, dtype=np.float64)


def import_extra(module: str, package: str) -> Any:
    """Return a module; UsageError with the command that installs it if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError:
        message = f"this evaluation scores with {package}, which is not installed"
        raise UsageError(message, where="--task", fix="pip install 'gptkit[eval]'") from None
