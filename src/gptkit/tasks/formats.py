"""What a GPT reads of an example (GPT-1 paper, section 3.3 and figure 1):

    classification    start text extract
    entailment        start premise delimiter hypothesis extract
    similarity        start first delimiter second extract, and the same with second before first
    multiple-choice   start context question delimiter choice extract, for each choice

One rule cuts what is too long: every field keeps its first c tokens, with the largest c that fits the limit. So the
longest field gives first, no marker is ever lost, and the two orders of a pair and all choices see the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gptkit.tasks.task import FORMAT_FIELDS

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


def format_example(task_format: str, fields: Sequence[Any], markers: Markers, limit: int) -> Formatted:
    """Return an example's sequences of at most `limit` tokens, and the names of the fields that were cut.

    `fields` are the ids of each of FORMAT_FIELDS, a sequence of ids for each choice; nothing stands between context and
    question. ValueError when `limit` does not hold the markers and a token of each field.
    """
    names = FORMAT_FIELDS[task_format]
    room = limit - (2 if task_format == "classification" else 3)
    if room < len(names):
        raise ValueError(f"no room for {' and '.join(names)}: {max(0, room)} tokens beside the markers")
    lengths = [
        max(map(len, field)) if name == "choices" else len(field) for name, field in zip(names, fields, strict=True)
    ]
    kept = _largest_share(sorted(lengths), room)
    truncated = tuple(name for name, length in zip(names, lengths, strict=True) if length > kept)

    def pair(first: Ids, second: Ids) -> Ids:
        return [markers.start, *first, markers.delimiter, *second, markers.extract]

    if task_format == "multiple-choice":
        context, question, choices = fields
        asked = context[:kept] + question[:kept]
        return Formatted(tuple(pair(asked, choice[:kept]) for choice in choices), truncated)
    heads = [field[:kept] for field in fields]
    if task_format == "classification":
        return Formatted(([markers.start, *heads[0], markers.extract],), truncated)
    orders = (heads, heads[::-1]) if task_format == "similarity" else (heads,)
    return Formatted(tuple(pair(*order) for order in orders), truncated)


def _largest_share(lengths: Sequence[int], room: int) -> int:
    """Return the largest share with sum(min(length, share)) <= room, the longest length if all fit; sorted lengths."""
    for i, length in enumerate(lengths):
        share = room // (len(lengths) - i)
        if length > share:
            return share
        room -= length
    return lengths[-1]
