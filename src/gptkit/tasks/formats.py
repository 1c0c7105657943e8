"""What a GPT reads of an example (GPT-1 paper, section 3.3 and figure 1):

    classification    start text extract
    entailment        start premise delimiter hypothesis extract
    similarity        start first delimiter second extract, and the same with second before first
    multiple-choice   start context question delimiter choice extract, for each choice

One rule cuts what is too long: every field keeps its first c tokens, with the largest c that fits the limit. So the
longest field gives first, no marker is ever lost, and the two orders of a pair and all choices see the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Ids = list[int]


class Markers(NamedTuple):
    """Ids of the tokens that fine-tuning adds; no text spells them."""

    start: int
    delimiter: int
    extract: int


@dataclass(frozen=True)
class Formatted:
    """The sequences of one example, and the names of the fields that were cut."""

    sequences: tuple[Ids, ...]
    truncated: tuple[str, ...]


def classification(text: Ids, markers: Markers, limit: int) -> Formatted:
    """Return one sequence of at most `limit` tokens."""
    kept, truncated = _fit({"text": len(text)}, limit - 2)
    return Formatted(([markers.start, *text[:kept], markers.extract],), truncated)


def entailment(premise: Ids, hypothesis: Ids, markers: Markers, limit: int) -> Formatted:
    """Return one sequence of at most `limit` tokens."""
    kept, truncated = _fit({"premise": len(premise), "hypothesis": len(hypothesis)}, limit - 3)
    return Formatted((_pair(premise[:kept], hypothesis[:kept], markers),), truncated)


def similarity(first: Ids, second: Ids, markers: Markers, limit: int) -> Formatted:
    """Return both orders of the pair, each of at most `limit` tokens."""
    kept, truncated = _fit({"first": len(first), "second": len(second)}, limit - 3)
    first, second = first[:kept], second[:kept]
    return Formatted((_pair(first, second, markers), _pair(second, first, markers)), truncated)


def multiple_choice(context: Ids, question: Ids, choices: Sequence[Ids], markers: Markers, limit: int) -> Formatted:
    """Return a sequence of at most `limit` tokens for each choice; nothing stands between context and question."""
    lengths = {"context": len(context), "question": len(question), "choices": max(map(len, choices))}
    kept, truncated = _fit(lengths, limit - 3)
    asked = context[:kept] + question[:kept]
    return Formatted(tuple(_pair(asked, choice[:kept], markers) for choice in choices), truncated)


def format_example(task_format: str, fields: Sequence[Any], markers: Markers, limit: int) -> Formatted:
    """Return an example's sequences, given the ids of each of FORMAT_FIELDS (a sequence of ids for each choice).

    ValueError when `limit` does not hold the markers and a token of each field.
    """
    return _FORMATS[task_format](*fields, markers, limit)


_FORMATS: dict[str, Callable[..., Formatted]] = {
    "classification": classification,
    "entailment": entailment,
    "similarity": similarity,
    "multiple-choice": multiple_choice,
}


def _pair(first: Ids, second: Ids, markers: Markers) -> Ids:
    return [markers.start, *first, markers.delimiter, *second, markers.extract]


def _fit(lengths: Mapping[str, int], room: int) -> tuple[int, tuple[str, ...]]:
    """Return how many tokens each field may keep, the most that fit into `room`, and which fields have more."""
    if room < len(lengths):
        raise ValueError(f"no room for {' and '.join(lengths)}: {max(0, room)} tokens beside the markers")
    kept = _largest_share(sorted(lengths.values()), room)
    return kept, tuple(name for name, length in lengths.items() if length > kept)


def _largest_share(lengths: Sequence[int], room: int) -> int:
    """Return the largest share with sum(min(length, share)) <= room, the longest length if all fit; sorted lengths."""
    for i, length in enumerate(lengths):
        share = room // (len(lengths) - i)
        if length > share:
            return share
        room -= length
    return lengths[-1]
