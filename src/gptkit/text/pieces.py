"""Cut long texts into parts that encode to the same tokens as the whole text; where sentences end, in any script."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple, TypeVar

TARGET_CHARACTERS = 1 << 16  # small enough that a batch of pieces keeps every core busy
LIMIT_CHARACTERS = 1 << 20  # the most in a piece without a line end

# Only white space that every regular-expression engine recognizes, and only after a non-space: a pre-tokenizer always
# starts a new word there, and no look-ahead (`\s+(?!\S)`) reaches across. Group 1 of a LAST pattern is the last match.
_LINE_END = re.compile(r"(?<=\S)[ \t\r\v\f]*\n")
_LAST_LINE_END = re.compile(r"(?s:.*)(?<=\S)([ \t\r\v\f]*\n)")
_SPACE = re.compile(r"(?<=\S)[ \t\r\v\f\n]")
_LAST_SPACE = re.compile(r"(?s:.*)(?<=\S)([ \t\r\v\f\n])")

# A quote or bracket that closes a sentence, and a mark that ends one with no white space after it: 。！？｡‼⁇⁈⁉ and ．
# unless a digit follows, । ॥ of Hindi, ؟ ۔ of Arabic and Urdu, the full stops of Armenian, Ethiopic, Burmese, Khmer and
# Tibetan. With whatever marks and closing ones follow, it is one end.
CLOSING = r"""["'\u2019\u201d\u00bb)\]\u300d\u300f\uff09\u3011\u300b\u3009\u3015\uff3d\uff63\uff02\uff07]"""
_MARK = (
    r"(?:[\u3002\uff01\uff1f\uff61\u203c\u2047-\u2049\u0964\u0965\u061f\u06d4"
    r"\u0589\u1362\u1367\u104b\u17d4\u17d5\u0f0d\u0f0e]|\uff0e(?!\d))"
)
UNSPACED_END = rf"{_MARK}(?:{_MARK}|{CLOSING}|[.!?\u2026])*"


class Piece(NamedTuple):
    """A document, or one of the parts that concatenate to it."""

    text: str
    document: int  # its number within the corpus
    source: str  # a file, file:line or a module


def is_blank(text: str) -> bool:
    return not text or text.isspace()


def cut(chunks: Iterable[str]) -> Iterator[str]:
    """Yield the concatenation of `chunks` in pieces that do not depend on where the chunks end.

    A piece ends before the last line end within 65,536 characters, else before the first one within 1,048,576. A longer
    line is cut before its last space within 1,048,576 characters; without any white space, after exactly that many,
    which is the only case where tokens may differ from those of the whole. An empty text is one piece.
    """
    buffer, start = "", 0
    for chunk in chunks:
        buffer, start = buffer[start:] + chunk, 0
        while len(buffer) - start > LIMIT_CHARACTERS:
            end = _next_cut(buffer, start)
            yield buffer[start:end]
            start = end
    while len(buffer) - start > TARGET_CHARACTERS:
        end = _next_cut(buffer, start)
        yield buffer[start:end]
        start = end
    if start < len(buffer) or not buffer:
        yield buffer[start:]


def _next_cut(buffer: str, start: int) -> int:
    """Return the end of the piece that begins at `start`."""
    target, limit = min(start + TARGET_CHARACTERS, len(buffer)), min(start + LIMIT_CHARACTERS, len(buffer))
    if buffer.find("\n", start + 1, limit) > 0:  # fifty times as fast as a regular expression that finds none
        if last := _LAST_LINE_END.match(buffer, start + 1, target):
            return last.start(1)
        if first := _LINE_END.search(buffer, start + 1, limit):
            return first.start()
    if limit == len(buffer):
        return limit
    space = _LAST_SPACE.match(buffer, start + 1, limit)
    return space.start(1) if space else limit


PASSAGE_BYTES = 2048


def passages(text: str, *, within_lines: bool) -> Iterator[str]:
    """Cut a text into passages, none of them only white space unless the whole text is.

    A passage is as many lines as fit into 2,048 bytes; the next one starts with the line end. A longer line is cut
    before a space if `within_lines`; otherwise, or if it has no space, it stays whole.
    """
    start, content_end = 0, len(text.rstrip())
    while start < len(text):
        end = _end(text, start, within_lines)
        end = len(text) if end >= content_end else end
        yield text[start:end]
        start = end


def _end(text: str, start: int, within_lines: bool) -> int:
    """Return the end of the passage that begins at `start`."""
    window = text[start : start + PASSAGE_BYTES]
    limit = start + len(window.encode()[:PASSAGE_BYTES].decode(errors="ignore"))
    if limit == len(text):
        return limit
    for pattern in (_LAST_LINE_END, _LAST_SPACE) if within_lines else (_LAST_LINE_END,):
        if last := pattern.match(text, start + 1, limit):
            return last.start(1)
    following = (_SPACE if within_lines else _LINE_END).search(text, max(start + 1, limit - 1))
    return following.start() if following else len(text)


Item = TypeVar("Item", bound=tuple[Any, ...])  # a named tuple whose first field is its text
Result = TypeVar("Result")


def batches(items: Iterable[Item], characters: int) -> Iterator[list[Item]]:
    """Yield consecutive items in batches of at least `characters` characters; the last one may be smaller."""
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item[0])
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encoded_ahead(
    pool: Executor, encode: Callable[[list[Item]], list[Result]], work: Iterable[list[Item]], in_flight: int
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, result) in order, while up to `in_flight` batches are queued or being encoded."""
    waiting: deque[tuple[list[Item], Future[list[Result]]]] = deque()
    for batch in work:
        waiting.append((batch, pool.submit(encode, batch)))
        if len(waiting) >= in_flight:
            done, results = waiting.popleft()
            yield from zip(done, results.result(), strict=True)
    for done, results in waiting:
        yield from zip(done, results.result(), strict=True)
