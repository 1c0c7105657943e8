"""Score an evaluation's examples under several protocols at once, so that the requests they share are computed once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from gptkit.scoring.encoder import Encoder
from gptkit.scoring.protocols import Answer, Group, Items, Request, ScoredProtocol, windows
from gptkit.text.examples import Example
from gptkit.text.tokenizers.any_tokenizer import unknown_note

NAMED = 3  # how many unscored texts a warning names
Score = Callable[[Sequence[Group], Sequence[int]], list[tuple[Answer, ...]]]


def score_protocols(
    protocols: Sequence[ScoredProtocol],
    examples: Sequence[Example],
    encoder: Encoder,
    score: Score,
    banned: Sequence[int] = (),
    *,
    warn: Callable[[str], object] = lambda line: None,
) -> list[Items]:
    """Return the items of each protocol; `score` answers groups of requests, with `top_allowed` not among `banned`.

    The items count the examples that were cut and the texts that could not be scored; if there are any of the latter,
    the column "impossible" has their number. Requests of one example with the same tokens are asked once, from the
    first token that any of them scores; requests longer than the context are split into disjoint windows. `warn` gets a
    line about what the model could not see completely, and one about what the tokenizer does not know.
    """
    asked = [protocol.requests(examples, encoder) for protocol in protocols]  # (protocol, example)
    for line in _warnings(asked, examples, encoder.n_positions):
        warn(line)
    unknown, tokens = encoder.count_unknown(asked[0], scored=protocols[0].scores_contexts)
    if unknown:
        warn(unknown_note("the texts", unknown, tokens))
    pooled = [_pooled(groups) for groups in zip(*asked, strict=True)]  # (example,)
    answers = _in_windows([tuple(pool.values()) for pool in pooled], encoder.n_positions, score, banned)
    known = [
        {key: (request.start, answer) for (key, request), answer in zip(pool.items(), group, strict=True)}
        for pool, group in zip(pooled, answers, strict=True)
    ]
    found = []
    for protocol, groups in zip(protocols, asked, strict=True):
        own = [tuple(_own(request, pool) for request in group) for group, pool in zip(groups, known, strict=True)]
        items = protocol.items(examples, groups, own, encoder)
        impossible = np.array([sum(bool(request.impossible) for request in group) for group in groups], np.float64)
        columns = {**items.columns, "impossible": impossible} if impossible.any() else items.columns
        found.append(replace(items, columns=columns, cut=sum(map(_is_cut, groups)), impossible=int(impossible.sum())))
    return found


def _in_windows(
    groups: Sequence[Group], n_positions: int, score: Score, banned: Sequence[int]
) -> list[tuple[Answer, ...]]:
    """Return the answers to requests of any length, each put together from its windows."""
    parts = [[_parts(request, n_positions) for request in group] for group in groups]
    answers = score([tuple(part for whole in group for part in whole) for group in parts], banned)
    found = []
    for group, given in zip(parts, answers, strict=True):
        rest = iter(given)
        found.append(tuple(_joined(tuple(itertools.islice(rest, len(whole)))) for whole in group))
    return found


def _parts(request: Request, n_positions: int) -> list[Request]:
    """Split a request into ones that fit the context and score the same tokens in the same order."""
    if len(request.ids) <= n_positions + 1:
        return [request]
    return [part for _, part in windows(request.ids[request.start - 1 :], window=n_positions, stride=n_positions)]


def _joined(answers: Sequence[Answer]) -> Answer:
    if len(answers) == 1:
        return answers[0]
    names = ("log_probs", "top", "top_allowed")
    return Answer(*(np.concatenate([getattr(answer, name) for answer in answers]) for name in names))


def _is_cut(group: Group) -> bool:
    return any(request.cut for request in group)


def _warnings(asked: Sequence[Sequence[Group]], examples: Sequence[Example], n_positions: int) -> Iterator[str]:
    """Yield a line about examples that were cut and one about texts that cannot be scored, over all protocols."""
    if cut := sum(any(map(_is_cut, groups)) for groups in zip(*asked, strict=True)):
        misfits = f"{cut:,} of {len(examples):,} examples do not fit into the model's {n_positions:,} positions"
        yield f"{misfits}: contexts are truncated on the left, and overlong choices are scored in windows"
    unscored = dict.fromkeys(
        f"{request.impossible} ({example.where})"
        for groups in asked
        for example, group in zip(examples, groups, strict=True)
        for request in group
        if request.impossible
    )
    if unscored:
        named = "; ".join([*unscored][:NAMED]) + "; ..." * (len(unscored) > NAMED)
        yield f"{len(unscored):,} texts cannot be scored and are never chosen: {named}"


def _pooled(groups: Sequence[Group]) -> dict[bytes, Request]:
    """Return the distinct requests of one example by their tokens, each with the smallest start."""
    pool: dict[bytes, Request] = {}
    for request in itertools.chain.from_iterable(groups):
        key = request.ids.tobytes()
        if key not in pool or request.start < pool[key].start:
            pool[key] = request
    return pool


def _own(request: Request, known: dict[bytes, tuple[int, Answer]]) -> Answer:
    """Return the part of a pooled answer that belongs to the request."""
    start, answer = known[request.ids.tobytes()]
    own = slice(request.start - start, None)
    return Answer(answer.log_probs[own], answer.top[own], answer.top_allowed[own])
