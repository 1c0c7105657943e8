"""Where sentences end, for protocols that keep the first few."""

from __future__ import annotations

import re

# What ends a sentence with the quotes and brackets that close with it, or a line end.
_END = re.compile(r"""[.!?\u2026]+["'\u2019\u201d\u00bb)\]]*(?=\s|$)|\n""")
_WORD_BEFORE = re.compile(r"[\w.]*$")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")  # J, U.S, e.g
_TITLES = frozenset(
    [
        *("mr", "mrs", "ms", "dr", "prof", "rev", "hon", "st", "sr", "jr", "no", "vs", "mme", "mlle"),
        *("gen", "sen", "rep", "gov", "lt", "col", "sgt", "capt"),
    ]
)


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, without the white space around them.

    A sentence ends after . ! ? or … before white space, and at a line end. A period after a title (Mr.) or after single
    letters (J., U.S.) ends none, nor does one that a lower-case letter follows.
    """
    found, begin = [], 0
    for end in _END.finditer(text):
        if not _is_within(text, begin, end):
            found.append(text[begin : end.end()].strip())
            begin = end.end()
    found.append(text[begin:].strip())
    return [one for one in found if one]


def _is_within(text: str, begin: int, end: re.Match[str]) -> bool:
    if end[0] != ".":
        return False
    word = _WORD_BEFORE.search(text, begin, end.start())
    before = word[0] if word else ""
    if before.lower() in _TITLES or _INITIALS.fullmatch(before):
        return True
    following = text[end.end() :].lstrip(" \t")[:1] if end.end() < len(text) else ""
    return following.islower()
