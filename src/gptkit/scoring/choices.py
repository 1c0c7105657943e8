"""Multiple choice by log-probability: the answer is the continuation whose scored tokens are most likely."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import InputError
from gptkit.scoring.protocols import Answer, Answers, Group, Items, Published, Request, ScoredProtocol
from gptkit.text.examples import Example

if TYPE_CHECKING:
    from gptkit.scoring.encoder import Encoder

Pair = tuple[str, str]  # a context, and the continuation that is scored
Pairs = Callable[[Example], Sequence[Pair]]  # an example's choices
Score = Callable[[Request, Answer], float]  # of a continuation; the largest wins
Ties = Literal["wrong", "first"]
Groups = Callable[[Sequence[Example]], Mapping[str, tuple[str, ...]]]


def total(request: Request, answer: Answer) -> float:
    """Return the log-probability of the continuation."""
    return float(answer.log_probs.sum())


def per_token(request: Request, answer: Answer) -> float:
    """Return the mean log-probability of the continuation's tokens."""
    return total(request, answer) / len(answer.log_probs)


def per_character(request: Request, answer: Answer) -> float:
    """Return the log-probability per character of the continuation, not counting the space that joins it."""
    return total(request, answer) / request.characters


def scores_of(score: Score, group: Group, answers: Answers) -> NDArray[np.float64]:
    """Return the score of each continuation (continuation,), -inf for one that cannot be scored."""
    pairs = zip(group, answers, strict=True)
    return np.array([score(request, answer) if len(answer.log_probs) else -math.inf for request, answer in pairs])


@dataclass(frozen=True)
class ChoiceProtocol(ScoredProtocol):
    """Answers with the choice whose (context, continuation) has the largest score, by default the log-probability.

    `chance` defaults to that of two choices. Among equal scores the first choice is taken, or with `ties` "wrong" a
    wrong one. A choice that cannot be scored is never taken; if no choice can be scored the answer is -1, which is
    wrong. `by_gain` subtracts the score that the continuation has without its context. The confidence is the winner's
    probability in a softmax over the scores.
    """

    measures: tuple[str, ...] = ("accuracy", "calibration_error", "accuracy_top_1_percent", "accuracy_top_10_percent")
    chance: float | None = 1 / 2
    version: int = 2  # 1 scored only a part of choices that do not fit, and counted all ties as wrong
    pairs: Pairs = field(kw_only=True)
    score: Score = total
    ties: Ties = "wrong"
    groups: Groups | None = None
    by_gain: bool = False

    def requests(self, examples: Sequence[Example], encoder: Encoder) -> list[Group]:
        groups = requests_of([self.pairs(example) for example in examples], encoder)
        if not self.by_gain:
            return groups
        alone = requests_of([[("", text) for _, text in self.pairs(example)] for example in examples], encoder)
        # A text that cannot be scored counts once.
        return [
            (*group, *(replace(request, impossible="") for request in bare))
            for group, bare in zip(groups, alone, strict=True)
        ]

    def items(
        self, examples: Sequence[Example], groups: Sequence[Group], answers: Sequence[Answers], encoder: Encoder
    ) -> Items:
        scores = [scores_of(self.score, *pair) for pair in zip(groups, answers, strict=True)]
        if self.by_gain:
            halves = (np.split(row, 2) for row in scores)
            scores = [after - np.where(np.isinf(alone), 0, alone) for after, alone in halves]
        references = np.array([label_of(example) for example in examples])
        predictions = np.array([_best(row, right, self.ties) for row, right in zip(scores, references, strict=True)])
        columns = {
            "correct": (predictions == references).astype(np.float64),
            "prediction": predictions.astype(np.float64),
            "reference": references.astype(np.float64),
            "confidence": np.array([_largest_probability(row) for row in scores], dtype=np.float64),
        }
        return Items(item_ids(examples), columns, self.groups(examples) if self.groups else {})


def ending_pairs(example: Example) -> list[Pair]:
    """Return each choice after a space, with the context and the question, if any, before it."""
    context, question, choices = example.fields
    before = f"{context} {question}" if question else str(context)
    return [(before, f" {choice}") for choice in choices]


def ending_protocols(published: tuple[Published, ...] = (), *, choices: int = 2) -> tuple[ChoiceProtocol, ...]:
    """Return the protocols that compare the choices by the sum, and by the mean, over their tokens."""
    about = "the ending's log-probability after its context; its {} over the tokens"
    shared: dict[str, Any] = {"published": published, "chance": 1 / choices, "pairs": ending_pairs}
    ways: dict[str, Score] = {"sum": total, "mean": per_token}
    return tuple(ChoiceProtocol(name, about.format(name), score=score, **shared) for name, score in ways.items())


def requests_of(groups: Sequence[Sequence[Pair]], encoder: Encoder) -> list[Group]:
    """Return a group of requests for each example's pairs."""
    requests = iter(encoder.requests([pair for group in groups for pair in group]))
    return [tuple(islice(requests, len(group))) for group in groups]


def item_ids(examples: Sequence[Example]) -> tuple[str, ...]:
    """Return the identifiers of the examples, or their numbers if the identifiers are not unique."""
    names = tuple(example.identifier for example in examples)
    return names if len(set(names)) == len(names) else tuple(map(str, range(len(names))))


def label_of(example: Example) -> int:
    """Return the index of the right choice or class; InputError for an example without a label."""
    if example.label is None:
        raise InputError("no label to compare with", where=example.where, fix="evaluate on a file with labels")
    return int(example.label)


def _best(scores: np.ndarray, right: int, ties: Ties) -> int:
    """Return the index of the largest score, -1 if all are -inf."""
    if scores.max() == -math.inf:
        return -1
    best = np.flatnonzero(scores == scores.max())
    return int(best[1]) if len(best) > 1 and best[0] == right and ties == "wrong" else int(best[0])


def _largest_probability(scores: np.ndarray) -> float:
    """Return the largest probability of the softmax, 0 if all scores are -inf."""
    return 0.0 if scores.max() == -math.inf else float(1 / np.exp(scores - scores.max()).sum())
