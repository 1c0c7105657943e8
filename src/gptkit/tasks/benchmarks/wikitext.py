"""WikiText-2 and WikiText-103: the test articles, and the texts behind their published perplexities.

joined_lines    Hugging Face's recipe: the data set's lines, with blank ones emptied, joined by two line ends
lm_eval_text    lm-eval's task: each article with its punctuation restored by rules that apply to all of it
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from gptkit.scoring.protocols import Published
from gptkit.scoring.running_text import Reading, TextProtocol, count_words_and_line_ends
from gptkit.tasks.detokenizers import WIKITEXT, apply_rules, compile_rules
from gptkit.tasks.text_corpora import PER_WORD, Stream, corpus_row, lm_eval_page, paper_protocol, whole_text
from gptkit.text.pieces import is_blank

# A line between single = signs is an article's title; headings within an article have more of them.
_TITLE = re.compile(r"^[^\S\n]*= (?!=)[^\n]*(?<!=) =[^\S\n]*$", re.MULTILINE)
_KEPT = re.compile(r"[^\s@]")  # characters that the rules keep, or replace one by one (N by 1)

_LM_EVAL_RULES = compile_rules(
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


def articles(path: Path) -> Iterator[tuple[str, str]]:
    """Yield WikiText's articles, each starting with the line end before its title."""
    text = whole_text(path)
    titles = [match.start() for match in _TITLE.finditer(text) if not is_blank(text[: match.start()])]
    for begin, end in pairwise([0, *(title - 1 for title in titles), len(text)]):
        yield text[begin:end], f"{path}:{1 + text.count(chr(10), 0, begin + 1)}"


def joined_lines(passages: Sequence[str]) -> list[str]:
    """Return the part of the joined text that each passage of the file becomes."""
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


def lm_eval_words(passages: Sequence[str]) -> list[int]:
    """Return the words of each passage of a page as lm-eval splits them: also an empty one at either end."""
    counts = [len(passage.split()) for passage in passages]
    if passages:
        counts[0] += passages[0][:1].isspace()
        counts[-1] += passages[-1][-1:].isspace()
    return counts


def lm_eval_text(passages: Sequence[str]) -> list[str]:
    """Return the part of lm-eval's text of a page that each of its passages becomes."""
    text = apply_rules(_LM_EVAL_RULES, "".join(passages))
    ends = [match.end() for match in _KEPT.finditer(text)]
    parts, start, kept = [], 0, 0
    for passage in passages[:-1]:
        kept += len(_KEPT.findall(passage))
        end = ends[kept - 1] if kept else 0
        parts.append(text[start:end])
        start = end
    return [*parts, text[start:]]


def _lm_eval(*published: Published) -> TextProtocol:
    return TextProtocol(
        "documents",
        "each article separately after the separator, its punctuation restored by lm-eval's rules, in disjoint windows "
        "of n_positions; per word of the article as distributed, line ends not counted",
        PER_WORD,
        published=published,
        reading=Reading("not at all", lm_eval_page, lm_eval_text, lm_eval_words),
    )


def _hugging_face(model: str, value: float) -> Published:
    return Published(model, "token_perplexity", value, "Hugging Face docs: Perplexity of fixed-length models")


_STREAM = Stream(
    Reading("as they are", render=joined_lines, words=count_words_and_line_ends),
    "lines joined by two line ends as in Hugging Face's recipe (which skips the first token of each window)",
    PER_WORD,
)

BENCHMARKS = (
    corpus_row(
        "wikitext2",
        ("wiki.test.raw", "wiki.test.tokens", "wikitext-2-raw/wiki.test.raw", "wikitext-2/wiki.test.tokens"),
        "Merity et al. 2016: wikitext-2-raw-v1 or wikitext-2-v1",
        articles,
        _STREAM,
        paper_protocol(WIKITEXT.detokenize, 29.41, 22.76, 19.93, 18.34),
        _lm_eval(Published("GPT-2 117M", "word_perplexity", 37.37, "lm-eval's task wikitext")),
        _STREAM.sliding(_hugging_face("GPT-2 117M", 29.9), _hugging_face("GPT-2 762M", 19.44)),
        _STREAM.sliding_half(_hugging_face("GPT-2 762M", 16.45)),
        overlap=(0.0066, 0.0163),
    ),
    corpus_row(
        "wikitext103",
        ("wiki.test.tokens", "wiki.test.raw", "wikitext-103/wiki.test.tokens", "wikitext-103-raw/wiki.test.raw"),
        "Merity et al. 2016: wikitext-103-v1 or wikitext-103-raw-v1",
        articles,
        _STREAM,
        paper_protocol(WIKITEXT.detokenize, 37.50, 26.37, 22.05, 17.48),
        _lm_eval(),
        _STREAM.sliding(),
        _STREAM.sliding_half(),
        overlap=(0.0909, 0.0242),
    ),
)
