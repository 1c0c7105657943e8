"""Sanitize and escape untrusted text for terminals, Markdown and XML; leave empty columns out of tables."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\^_]?")
_BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
_UNSHOWN = ("Cc", "Cf", "Cs", "Co", "Cn")  # control, format (bidirectional too), surrogate, private, unassigned
UNKNOWN = (None, "", "n/a")
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")
_NUMBERED = re.compile(r"^(\d+)(\.)(?=\s|$)")  # would start a list
_ADDRESS = re.compile(r"(?i)\b(https?|ftp|www)(:(?=//)|(?<=www)\.)")  # would become a link


def one_line(text: str) -> str:
    """Return text on one line, without escape sequences, bidirectional controls and invisible characters."""
    spaced = " ".join(_ESCAPE_SEQUENCE.sub("", text).split())
    return "".join(char for char in spaced if unicodedata.category(char) not in _UNSHOWN)


def strip_control_characters(text: str) -> str:
    """Return text with its lines, without escape sequences, control characters and bidirectional controls."""
    lines = _ESCAPE_SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in lines if char in "\n\t" or not _is_control(char))


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs") or unicodedata.bidirectional(char) in _BIDI


def escape_markdown(text: str) -> str:
    """Return text on one line with everything escaped that Markdown or HTML would interpret, links included."""
    escaped = _SPECIAL.sub(r"\\\1", html.escape(one_line(text), quote=False))
    return _ADDRESS.sub(r"\1\\\2", _NUMBERED.sub(r"\1\\\2", escaped))


def known_columns(
    columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> tuple[list[str], list[tuple[object, ...]]]:
    """Return a table without the columns that are empty or n/a in every row; the first is always kept."""
    kept = [index for index in range(len(columns)) if not index or any(row[index] not in UNKNOWN for row in rows)]
    return [columns[index] for index in kept], [tuple(row[index] for index in kept) for row in rows]


def code_block(text: str) -> str:
    """Return text as a fenced code block that backticks in the text cannot close."""
    text = strip_control_characters(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
