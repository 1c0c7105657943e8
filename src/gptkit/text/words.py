"""Words by one rule that serves every script: Unicode's word boundaries (UAX #29).

A word is what lies between two boundaries and holds a letter, a digit or an emoji: don't, 3.14, हिन्दी, 한국어. Scripts
that put no spaces between words have a boundary after each character: every ideograph and every hiragana is a word of
its own, as are Thai, Lao, Khmer and Burmese characters with their marks (finding their words takes dictionaries).
"""

from __future__ import annotations

from collections.abc import Iterable

import regex

RULE = "Unicode words (UAX #29; each CJK character is one)"
# White space always ends a word; regex finds no boundary between half a flag and a space.
_WORD = regex.compile(r"[\p{L}\p{N}\p{Extended_Pictographic}\p{Regional_Indicator}]\S*?(?:\b|(?=\s))", regex.WORD)


def words_of(text: str) -> list[str]:
    """Return the words of a text, without any punctuation that a word begins with."""
    found: list[str] = _WORD.findall(text)
    return found


def count_words(text: str) -> int:
    return len(words_of(text))


def unseparated(counted: int, texts: Iterable[str], by: str = "white space") -> str:
    """Return why words separated `by` white space are no words of these texts; empty if they are.

    They are not if fewer than half as many are `counted` as there are by Unicode's rule.
    """
    words = sum(map(count_words, texts))
    return f"{by} separates only {counted:,} of the {words:,} {RULE}" if 2 * counted < words else ""
