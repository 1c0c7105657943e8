"""The Children's Book Test as its authors distribute it: cbtest_CN_valid_2000ex.txt and the like, in Treebank tokens.

An example is 21 numbered lines and a blank one. The last line is the question, with XXXXX for the word that is asked,
and behind tabs the answer and, after an empty column, the candidates with | between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gptkit.errors import InputError
from gptkit.tasks.cells import text_of
from gptkit.tasks.forms import find_form
from gptkit.tasks.reading import Loaded, loaded
from gptkit.tasks.rows import lines
from gptkit.text.examples import Example

BLANK = "XXXXX"
_SENTENCES = 20
_FIX = "an example is lines 1 to 20, line 21 with question, answer and candidates, and a blank line"


def cbt(data: str | None, *, words: str) -> Loaded:
    """Return the validation split of a kind of words (CN, NE, V, P), which GPT-2 was evaluated on.

    Examples: fields = (the 20 sentences, question, candidates), label = the answer's index among the candidates.
    """
    file = f"cbtest_{words}_valid_2000ex.txt"
    forms = [(f"{folder}{file}",) for folder in ("", "data/", "CBTest/data/")]
    [path] = find_form(f"cbt-{words.lower()}", data, forms, source="research.facebook.com, CBTest.tgz")
    examples = [_example(block, path, number) for number, block in enumerate(_blocks(path))]
    if not examples:
        raise InputError("the file is empty", where=f"{path}:1", fix="fetch it again")
    return loaded(examples)


def _blocks(path: Path) -> Iterator[list[tuple[int, str]]]:
    """Yield the lines between blank ones, with their numbers in the file."""
    block: list[tuple[int, str]] = []
    for number, line in lines(path):
        if line.strip():
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _example(block: list[tuple[int, str]], path: Path, number: int) -> Example:
    sentences = [_sentence(line, place, f"{path}:{at}") for place, (at, line) in enumerate(block, 1)]
    where = f"{path}:{block[-1][0]}"
    if len(block) != _SENTENCES + 1:
        raise InputError(f"an example of {len(block)} lines, where 21 belong", where=where, fix=_FIX)
    question, answer, candidates = _question(sentences.pop(), where)
    return Example((tuple(sentences), question, candidates), candidates.index(answer), where, str(number))


def _sentence(line: str, place: int, where: str) -> str:
    found = re.fullmatch(r"([0-9]+) (.*)", line.strip())
    if found is None or found[1] != str(place):
        raise InputError(f"no line {place} of an example: {line[:40]!r}", where=where, fix=_FIX)
    return text_of(found[2], "sentence", where)


def _question(line: str, where: str) -> tuple[str, str, tuple[str, ...]]:
    cells = [cell.strip() for cell in line.split("\t")]
    if len(cells) != 4:
        raise InputError(f"{len(cells)} column(s), where 4 belong", where=where, fix=_FIX)
    question, answer, _, joined = cells
    candidates = tuple(dict.fromkeys(filter(None, map(str.strip, joined.split("|")))))  # some are given twice
    if BLANK not in question:
        raise InputError(f"no {BLANK} in the question", where=where, fix=_FIX)
    if answer not in candidates or len(candidates) < 2:
        raise InputError(f"the answer {answer[:40]!r} is not among several candidates", where=where, fix=_FIX)
    return question, answer, candidates
