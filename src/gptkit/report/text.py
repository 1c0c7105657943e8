"""Text for people: sanitize and escape what is untrusted, format sizes and durations, leave empty columns out."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\^_]?")
_BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
_UNSHOWN = ("Cc", "Cf", "Cs", "Co", "Cn")  # control, format (bidirectional too), surrogate, private, unassigned
UNKNOWN = (None, "", "n/a")
_JOINERS = "\u200c\u200d"  # which scripts and emoji need
_PUNCTUATION = r"[!-/:-@\[-`{-~]"
# What Markdown would interpret in a text of one line, as GitHub writes it; all else reads as it is written.
_MARKUP = re.compile(
    rf"""
      \\(?={_PUNCTUATION})                  # a backslash that would escape
    | \|                                    # a cell of a table
    | `                                     # code
    | \*(?=\S.*\*)                          # emphasis, for underscores not within a word
    | (?<![^\W_])_(?=\S.*_)
    | ~(?=\S.*~)                            # strikethrough
    | \$(?=.*\$)                            # math
    | (?<=\])\(                             # a link or an image
    | ^\[(?=.*\]:|[\ xX]\](?:\s|$))         # a definition, a box
    | ^(?:>|[-*_](?=[-*_\s]*$)|[-+*](?=\s|$))  # a quotation, a rule, a list
    | (?:^|(?<=\s))\#(?=\#*(?:\s|$))        # a heading, or its end
    """,
    re.VERBOSE,
)
_NUMBERED = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")  # would start a list
_TAG = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)")
_ADDRESS = re.compile(r"(?i)(?<![^\W_])(https?|ftp|www)(:(?=//)|(?<=www)\.)")  # would become a link


def one_line(text: str) -> str:
    """Return text on one line, without escape sequences, bidirectional controls and invisible characters."""
    spaced = " ".join(_ESCAPE_SEQUENCE.sub("", text).split())
    shown = "".join(char for char in spaced if unicodedata.category(char) not in _UNSHOWN or char in _JOINERS)
    return " ".join(shown.split())


def on_one_line(text: str) -> str:
    """Return text with its line breaks as escapes, as tables show it."""
    return text.replace("\n", "\\n")


def strip_control_characters(text: str) -> str:
    """Return text with its lines, without escape sequences, control characters and bidirectional controls."""
    lines = _ESCAPE_SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in lines if char in "\n\t" or not _is_control(char))


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs") or unicodedata.bidirectional(char) in _BIDI


def escape_markdown(text: str) -> str:
    """Return text on one line that reads as written: escaped only where Markdown or HTML would interpret it."""
    line = _TAG.sub(lambda match: html.escape(match[0]), one_line(text))
    return _ADDRESS.sub(r"\1\\\2", _NUMBERED.sub(r"\1\\\2", _MARKUP.sub(r"\\\g<0>", line)))


def known_columns(
    columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> tuple[list[str], list[tuple[object, ...]]]:
    """Return a table without the columns that are empty or n/a in every row; the first is always kept."""
    kept = [index for index in range(len(columns)) if not index or any(row[index] not in UNKNOWN for row in rows)]
    return [columns[index] for index in kept], [tuple(row[index] for index in kept) for row in rows]


def code_block(text: str, language: str = "text") -> str:
    """Return text as a fenced code block that backticks in the text cannot close."""
    text = strip_control_characters(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def size(count: float) -> str:
    """Format bytes with a unit: 789 B, 12 kB, 3.4 MB, 56 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:,.3g} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """Format seconds with a unit: 12 s, 3.4 min, 5.6 h, 78 days."""
    for unit, factor in (("days", 2 * 86400), ("h", 3600), ("min", 60)):
        if seconds >= factor:
            return f"{seconds / (86400 if unit == 'days' else factor):,.3g} {unit}"
    return f"{seconds:.3g} s"


def figure(value: float) -> str:
    """Format a number with four digits, or with all that are before the point: 0.4257, 1,234, 1.2e+18."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
