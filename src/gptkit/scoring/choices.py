"""Choices by log-probability: of the texts that could follow, the one whose scored tokens are the likeliest wins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np

from gptkit.errors import InputError
from gptkit.scoring.protocols import Items, Published, ScoredProtocol
from gptkit.scoring.remembered import remembered
from gptkit.scoring.requests import Answer, Group
from gptkit.text.examples import Example

if TYPE_CHECKING:
    from gptkit.scoring.encoder import Encoder

Pair = tuple[str, str]  # a context and the continuation that is scored after it
Pairs = Callable[[Example], Sequence[Pair]]  # a pair for each choice of an example
Score = Callable[[Answer, str], float]  # of a continuation: the larger, the better
Ties = Literal["wrong", "first"]
Groups = Callable[[Sequence[Example]], Mapping[str, tuple[str, ...]]]

MEASURES = ("accuracy", "calibration_error", "accuracy_top_1_percent", "accuracy_top_10_percent")


def total(answer: Answer, continuation: str) -> float:
    """Return the log-probability of the continuation."""
    return float(answer.log_probs.sum())


def per_token(answer: Answer, continuation: str) -> float:
    """Return the mean log-probability of the continuation's tokens."""
    return total(answer, continuation) / len(answer.log_probs)


def per_character(answer: Answer, continuation: str) -> float:
    """Return the log-probability by the characters of the continuation, the space that joins it not counted."""
    return total(answer, continuation) / len(continuation.removeprefix(" "))


def possible(score: Score) -> Score:
    """Return the score that is -inf where nothing of the continuation could be scored."""
    return lambda answer, continuation: score(answer, continuation) if len(answer.log_probs) else -math.inf


def choice_protocol(
    name: str,
    about: str,
    pairs: Pairs,
    score: Score,
    *,
    choices: int,
    ties: Ties = "wrong",
    published: Sequence[Published] = (),
    groups: Groups | None = None,
) -> ScoredProtocol:
    """Return the protocol that takes the choice with the largest score of its (context, continuation).

    `choices` is how many an example has, from which guessing is right once. Of choices with equal scores the first is
    taken, or with `ties` "wrong" one that is not right. A choice that cannot be scored is never taken; the answer to an
    example without any other is -1, and wrong. The confidence is the winner's share of the exponentials of all scores.
    """
    score = possible(score)

    def all_pairs(examples: Sequence[Example]) -> list[Sequence[Pair]]:
        return [pairs(one) for one in examples]

    pairs_of = remembered(all_pairs)

    def items(examples: Sequence[Example], answers: Sequence[tuple[Answer, ...]], encoder: Encoder) -> Items:
        scores = [
            np.array([score(answer, text) for answer, (_, text) in zip(group, texts, strict=True)])
            for texts, group in zip(pairs_of(examples), answers, strict=True)
        ]
        references = np.array([label_of(one) for one in examples])
        return Items(item_ids(examples), _columns(scores, references, ties), groups(examples) if groups else {})

    return ScoredProtocol(
        name,
        about,
        MEASURES,
        published=tuple(published),
        chance=1 / choices,
        version=2,  # 1 scored a part of choices that do not fit, and called all ties wrong
        requests=lambda examples, encoder: requests_of(pairs_of(examples), encoder),
        items=items,
    )


def requests_of(groups: Sequence[Sequence[Pair]], encoder: Encoder) -> list[Group]:
    """Return a group of requests for each example's pairs."""
    requests = iter(encoder.requests([pair for group in groups for pair in group]))
    return [tuple(islice(requests, len(group))) for group in groups]


def item_ids(examples: Sequence[Example]) -> tuple[str, ...]:
    """Return the identifiers of the examples, numbers where the file names two of them alike."""
    names = tuple(one.identifier for one in examples)
    return names if len(set(names)) == len(names) else tuple(map(str, range(len(names))))


def label_of(example: Example) -> int:
    """Return the index of the right choice or class; InputError for an example without label."""
    if example.label is None:
        raise InputError("no label to compare with", where=example.where, fix="evaluate on a file with labels")
    return int(example.label)


def _columns(scores: Sequence[np.ndarray], references: np.ndarray, ties: Ties) -> dict[str, np.ndarray]:
    """Return the columns of examples from the scores of their choices, (choice,) each."""
    predictions = np.array([_best(row, right, ties) for row, right in zip(scores, references, strict=True)])
    return {
        "correct": (predictions == references).astype(np.float64),
        "prediction": predictions.astype(np.float64),
        "reference": references.astype(np.float64),
        "confidence": np.array([_largest_share(row) for row in scores], dtype=np.float64),
    }


def _best(scores: np.ndarray, right: int, ties: Ties) -> int:
    """Return the index of the largest score, -1 where all are -inf."""
    if scores.max() == -math.inf:
        return -1
    best = np.flatnonzero(scores == scores.max())
    return int(best[1]) if len(best) > 1 and best[0] == right and ties == "wrong" else int(best[0])


def _largest_share(scores: np.ndarray) -> float:
    """Return the largest probability of a softmax, 0 where all scores are -inf."""
    return 0.0 if scores.max() == -math.inf else float(1 / np.exp(scores - scores.max()).sum())
