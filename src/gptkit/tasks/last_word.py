"""Does the likeliest continuation spell the last word of a passage? (LAMBADA, Paperno et al. 2016)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gptkit.errors import InputError
from gptkit.scoring.choices import item_ids, requests_of
from gptkit.scoring.protocols import Items, Published, ScoredProtocol
from gptkit.scoring.remembered import remembered
from gptkit.scoring.requests import Answer, Group, Request
from gptkit.text.examples import Example

if TYPE_CHECKING:
    from gptkit.scoring.encoder import Encoder

Prepare = Callable[[str], str]
Requests = Callable[[Sequence[Example], "Encoder"], list[Group]]


def last_token(prepare: Prepare) -> Requests:
    """Return the function to requests for the last token of a passage, be it a whole word or the end of one."""

    def requests(examples: Sequence[Example], encoder: Encoder) -> list[Group]:
        texts = encoder.encode([prepare(str(one.fields[0])) for one in examples])
        return [(_last_of(ids, encoder, one),) for ids, one in zip(texts, examples, strict=True)]

    return remembered(requests)


def _last_of(ids: np.ndarray, encoder: Encoder, example: Example) -> Request:
    if not len(ids):
        raise _unscored("it has no tokens", example)
    ids = ids if len(ids) > 1 else np.array([encoder.separator, *ids])
    kept = ids[-(encoder.n_positions + 1) :]
    return Request(kept, len(kept) - 1, cut=len(kept) < len(ids))


def last_word(prepare: Prepare) -> Requests:
    """Return the function to requests for what follows the last space of a passage, all of its tokens."""

    def pairs(example: Example) -> list[tuple[str, str]]:
        context, space, word = prepare(str(example.fields[0])).rpartition(" ")
        return [(context, space + word)]

    def requests(examples: Sequence[Example], encoder: Encoder) -> list[Group]:
        groups = requests_of([pairs(one) for one in examples], encoder)
        for example, (request,) in zip(examples, groups, strict=True):
            if request.impossible:
                raise _unscored(request.impossible, example)
            if len(request.ids) > encoder.n_positions + 1:
                raise _unscored(f"it is longer than the model's {encoder.n_positions:,} positions", example)
        return groups

    return remembered(requests)


def _unscored(reason: str, example: Example) -> InputError:
    """Return the error of a passage whose end has no perplexity, so that those of all have no mean."""
    return InputError(f"the end of the passage cannot be scored: {reason}", where=example.where, fix="drop the passage")


def last_word_protocol(
    name: str,
    about: str,
    requests: Requests,
    *,
    filtered: bool = False,
    per_token: bool = False,
    published: Sequence[Published] = (),
) -> ScoredProtocol:
    """Return the protocol that asks whether each token of the target is the likeliest one.

    `filtered`: the first one only among what is no stop word. The perplexity is of targets, never filtered.
    """

    def items(examples: Sequence[Example], answers: Sequence[tuple[Answer, ...]], encoder: Encoder) -> Items:
        targets = [group[0].ids[group[0].start :] for group in requests(examples, encoder)]
        found = [_found(target, answer, filtered) for target, (answer,) in zip(targets, answers, strict=True)]
        columns = {
            "correct": np.array(found, dtype=np.float64),
            "nll": np.array([-answer.log_probs.sum() for (answer,) in answers], dtype=np.float64),
        }
        return Items(item_ids(examples), columns)

    return ScoredProtocol(
        name,
        about,
        ("accuracy", "perplexity"),
        gated=2,
        published=tuple(published),
        per_token=per_token,
        chance=0.0,
        requests=requests,
        items=items,
    )


def _found(target: np.ndarray, answer: Answer, filtered: bool) -> bool:
    predicted = np.concatenate([(answer.top_allowed if filtered else answer.top)[:1], answer.top[1:]])
    return bool(np.array_equal(predicted, target))
