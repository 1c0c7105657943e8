"""From examples to scored items: what all protocols of an evaluation ask is asked once, and each gets its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gptkit.data.examples import Example
from gptkit.evaluation.protocols import Items, ScoredProtocol
from gptkit.evaluation.scoring.encoder import Encoder
from gptkit.evaluation.scoring.requests import Answer, Group, Request

Score = Callable[[Sequence[Group], Sequence[int]], list[tuple[Answer, ...]]]


def score_protocols(
    protocols: Sequence[ScoredProtocol],
    examples: Sequence[Example],
    encoder: Encoder,
    score: Score,
    banned: Sequence[int] = (),
) -> list[Items]:
    """Return the items of each protocol; `score` answers groups of requests, none of whose tops may be `banned`.

    Requests of one example with the same tokens are asked once, from the first token on that any of them scores.
    """
    asked = [protocol.requests(examples, encoder) for protocol in protocols]  # (protocol, example)
    pooled = [_pooled(groups) for groups in zip(*asked, strict=True)]  # (example,)
    answers = score([tuple(pool.values()) for pool in pooled], banned)
    found = [
        {key: (request.start, answer) for (key, request), answer in zip(pool.items(), group, strict=True)}
        for pool, group in zip(pooled, answers, strict=True)
    ]
    return [
        protocol.items(
            examples,
            [tuple(_own(request, known) for request in group) for group, known in zip(groups, found, strict=True)],
            encoder,
        )
        for protocol, groups in zip(protocols, asked, strict=True)
    ]


def _pooled(groups: Sequence[Group]) -> dict[bytes, Request]:
    """Return the different requests of one example by their tokens."""
    pool: dict[bytes, Request] = {}
    for request in (one for group in groups for one in group):
        key = request.ids.tobytes()
        if key not in pool or request.start < pool[key].start:
            pool[key] = request
    return pool


def _own(request: Request, known: dict[bytes, tuple[int, Answer]]) -> Answer:
    """Return the part of a pooled answer that the request asked for."""
    start, answer = known[request.ids.tobytes()]
    own = slice(request.start - start, None)
    return Answer(answer.log_probs[own], answer.top[own], answer.top_allowed[own])
