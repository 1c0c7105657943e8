"""Names and texts of others, made fit for a report's format."""

from __future__ import annotations

import html
import re
import unicodedata

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\^_]?")
_LINE_END = re.compile(r"\r\n?")
_BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
_UNSHOWN = ("Cc", "Cf", "Cs", "Co", "Cn")  # control, format (with bidirectional overrides), surrogate, private, none
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")
_NUMBERED = re.compile(r"^(\d+)(\.)(?=\s|$)")  # would begin a list
_ADDRESS = re.compile(r"(?i)\b(https?|ftp|www)(:(?=//)|(?<=www)\.)")  # would become a link


def one_line(text: str) -> str:
    """Return text on one line without what drives a terminal, turns the direction of writing, or shows nothing."""
    spaced = " ".join(_ESCAPE_SEQUENCE.sub("", text).split())
    return "".join(mark for mark in spaced if unicodedata.category(mark) not in _UNSHOWN)


def strip_control_characters(text: str) -> str:
    """Return text, its lines kept, without what drives a terminal or turns the direction of writing."""
    lines = _LINE_END.sub("\n", _ESCAPE_SEQUENCE.sub("", text))
    return "".join(mark for mark in lines if mark in "\n\t" or not _is_control(mark))


def _is_control(mark: str) -> bool:
    return unicodedata.category(mark) in ("Cc", "Cs") or unicodedata.bidirectional(mark) in _BIDI


def escape_markdown(text: str) -> str:
    """Return text with everything escaped that Markdown or HTML would read, addresses too, on one line."""
    escaped = _SPECIAL.sub(r"\\\1", html.escape(one_line(text), quote=False))
    return _ADDRESS.sub(r"\1\\\2", _NUMBERED.sub(r"\1\\\2", escaped))


def code_block(text: str) -> str:
    """Return text as a code block that its own backticks cannot close."""
    text = strip_control_characters(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
