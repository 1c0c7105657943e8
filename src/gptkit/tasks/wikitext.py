"""How others read WikiText: what their published perplexities are perplexities of.

joined_lines    Hugging Face's recipe: the lines of the data set, blank ones empty, joined by two line ends
lm_eval_text    lm-eval's task: an article with its punctuation put back by rules that look at the whole of it
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LEADING_BLANK_LINES = re.compile(r"^\s*\n")
_KEPT = re.compile(r"[^\s@]")  # all that the rules leave alone, but for N, which gives way to 1

# Pattern and replacement, in this order.
_LM_EVAL_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"s '", "s'"),
        (r" @([-,.])@ ", r"\1"),
        (r" : ", ": "),
        (r" ; ", "; "),
        (r" \. ", ". "),
        (r" ! ", "! "),
        (r" \? ", "? "),
        (r" , ", ", "),
        (r"\(\s*([^)]*?)\s*\)", r"(\1)"),
        (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
        (r"\{\s*([^}]*?)\s*\}", r"{\1}"),
        (r'"\s*([^"]*?)\s*"', r'"\1"'),
        (r"'\s*([^']*?)\s*'", r"'\1'"),
        (r"= = = =", "===="),
        (r"= = =", "==="),
        (r"= =", "=="),
        (r" ° ", "°"),
        (r" \n", "\n"),
        (r"\n ", "\n"),
        (r" N ", " 1 "),
        (r" 's", "'s"),
    )
)


def joined_lines(passages: Sequence[str]) -> list[str]:
    """Return what each passage of the file is in the joined text."""
    joined, blank = [], True  # is the line empty so far?
    for passage in passages:
        parts = []
        for number, fragment in enumerate(passage.split("\n")):
            if number:
                parts.append("\n\n" if blank else "\n\n\n")
                blank = True
            blank = blank and (not fragment or fragment.isspace())
            parts.append("" if blank else fragment)
        joined.append("".join(parts))
    joined[-1:] = [last.removesuffix("\n\n") for last in joined[-1:]]
    return joined


def lm_eval_page(passages: Sequence[str]) -> list[str]:
    """Return a document's passages without the blank lines before it, as lm-eval's data set of articles has them."""
    return [_LEADING_BLANK_LINES.sub("", passage) if not number else passage for number, passage in enumerate(passages)]


def lm_eval_words(passages: Sequence[str]) -> list[int]:
    """Return the words of each passage of a page: its parts between white space, an empty one at either end counted."""
    counts = [len(passage.split()) for passage in passages]
    if passages:
        counts[0] += passages[0][:1].isspace()
        counts[-1] += passages[-1][-1:].isspace()
    return counts


def lm_eval_text(passages: Sequence[str]) -> list[str]:
    """Return what each passage of a page is in the text that lm-eval makes of the page."""
    text = "".join(passages)
    for pattern, replacement in _LM_EVAL_RULES:
        text = pattern.sub(replacement, text)
    ends = [match.end() for match in _KEPT.finditer(text)]
    parts, start, kept = [], 0, 0
    for passage in passages[:-1]:
        kept += len(_KEPT.findall(passage))
        end = ends[kept - 1] if kept else 0
        parts.append(text[start:end])
        start = end
    return [*parts, text[start:]]
