"""What evaluations of texts that a model writes have in common: sentences, and the libraries of the extra `eval`."""

from __future__ import annotations

import importlib
import re
from typing import Any

from gptkit.errors import UsageError

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


def import_extra(module: str, package: str) -> Any:
    """Return a module; UsageError with the line that installs it where it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError:
        message = f"this evaluation scores with {package}, which is not installed"
        raise UsageError(message, where="--task", fix="pip install 'gptkit[eval]'") from None
