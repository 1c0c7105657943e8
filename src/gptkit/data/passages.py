"""Documents in passages of about 2,048 bytes: small enough that one long text gives many scores to compare."""

from __future__ import annotations

import re
from collections.abc import Iterator

PASSAGE_BYTES = 2048

# As in pieces.py: byte-level tokenizers begin anew there, so a passage's tokens are its own.
_LINE_END = re.compile(r"(?<=\S)[ \t\r\v\f]*\n")
_SPACE = re.compile(r"(?<=\S)[ \t\r\v\f\n]")


def passages(text: str, *, within_lines: bool) -> Iterator[str]:
    """Yield the parts that join to a text, none of them white space alone unless the text is.

    A passage is as many lines as go into 2,048 bytes; the end of its last line stands at the beginning of the next one.
    A longer line is cut before a space, or with `within_lines` false stays whole, as does what has no space.
    """
    start, content_end = 0, len(text.rstrip())
    while start < len(text):
        end = _end(text, start, within_lines)
        end = len(text) if end >= content_end else end
        yield text[start:end]
        start = end


def _end(text: str, start: int, within_lines: bool) -> int:
    """Return where the passage that begins at `start` ends."""
    window = text[start : start + PASSAGE_BYTES]
    limit = start + len(window.encode()[:PASSAGE_BYTES].decode(errors="ignore"))
    if limit == len(text):
        return limit
    for pattern in (_LINE_END, _SPACE) if within_lines else (_LINE_END,):
        found = [match.start() for match in pattern.finditer(text, start + 1, limit)]
        if found:
            return found[-1]
    following = (_SPACE if within_lines else _LINE_END).search(text, max(start + 1, limit - 1))
    return following.start() if following else len(text)
