"""Names and texts of others, made fit for a report's format."""

from __future__ import annotations

import re
import unicodedata

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\^_]?")
_LINE_END = re.compile(r"\r\n?")
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
_UNSHOWN = ("Cc", "Cf", "Cs", "Co", "Cn")  # control, format (with bidirectional overrides), surrogate, private, none


def one_line(text: str) -> str:
    """Return text on one line without what drives a terminal, turns the direction of writing, or shows nothing."""
    spaced = " ".join(_ESCAPE_SEQUENCE.sub("", text).split())
    return "".join(mark for mark in spaced if unicodedata.category(mark) not in _UNSHOWN)


def clean_lines(text: str) -> str:
    """Return text, its lines kept, without what drives a terminal or turns the direction of writing."""
    lines = _LINE_END.sub("\n", _ESCAPE_SEQUENCE.sub("", text))
    return "".join(mark for mark in lines if mark in "\n\t" or not _drives(mark))


def _drives(mark: str) -> bool:
    return unicodedata.category(mark) in ("Cc", "Cs") or unicodedata.bidirectional(mark) in _TURNING
