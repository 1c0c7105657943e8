"""Names and texts of others, made fit for a report's format."""

from __future__ import annotations

import re
import unicodedata

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\^_]?")
_UNSHOWN = ("Cc", "Cf", "Cs", "Co", "Cn")  # control, format (with bidirectional overrides), surrogate, private, none


def one_line(text: str) -> str:
    """Return text on one line without what drives a terminal, turns the direction of writing, or shows nothing."""
    spaced = " ".join(_ESCAPE_SEQUENCE.sub("", text).split())
    return "".join(mark for mark in spaced if unicodedata.category(mark) not in _UNSHOWN)
