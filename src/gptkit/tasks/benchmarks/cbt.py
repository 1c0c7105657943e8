"""The Children's Book Test: which candidate makes the most likely sentence after twenty others?

Files of the authors' distribution such as cbtest_CN_valid_2000ex.txt, in Treebank tokens. An example is 21 numbered
lines and a blank one. The last line has four tab-separated columns: the question, with XXXXX for the missing word; the
answer; an empty one; and the candidates, joined by |.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from itertools import groupby

from gptkit.errors import InputError
from gptkit.scoring.choices import ChoiceProtocol, Pair, label_of
from gptkit.tasks.detokenizers import TREEBANK
from gptkit.tasks.files import checked_text, find_files, lines
from gptkit.tasks.task import Evaluation, Loaded, gpt2, loaded
from gptkit.text.examples import Example

BLANK = "XXXXX"
_SENTENCES = 20
_FIX = "write lines 1 to 20, line 21 with question, answer and candidates, and a blank line"
_PAPER = {"CN": (0.8765, 0.9235, 0.9345, 0.9330, 0.857), "NE": (0.834, 0.871, 0.880, 0.8905, 0.823)}
_KINDS = ("CN", "NE", "V", "P")  # common nouns, named entities, verbs, prepositions
_ABOUT = "P(candidate) x P(rest of the sentence | candidate) after the 20 sentences, on the validation split"


def cbt(data: str | None, *, words: str) -> Loaded:
    """Return the validation split, on which GPT-2 was evaluated, for a kind of words: CN, NE, V or P.

    Fields: the 20 sentences, the question, the candidates. The label is the answer's index among the candidates.
    """
    file = f"cbtest_{words}_valid_2000ex.txt"
    sets = [(f"{folder}{file}",) for folder in ("", "data/", "CBTest/data/")]
    [path] = find_files(f"cbt-{words.lower()}", data, sets, source="research.facebook.com, CBTest.tgz")
    groups = groupby(lines(path), key=lambda line: not line[1].strip())
    blocks = [list(group) for is_blank, group in groups if not is_blank]
    examples = [_example(block, number) for number, block in enumerate(blocks)]
    if not examples:
        raise InputError("the file is empty", where=f"{path}:1", fix="fetch it again")
    return loaded(examples)


def _example(block: list[tuple[str, str]], number: int) -> Example:
    """Return the example in a block of ("file:line", line)."""
    sentences = []
    for place, (where, line) in enumerate(block, 1):
        found = re.fullmatch(r"([0-9]+) (.*)", line.strip())
        if found is None or found[1] != str(place):
            raise InputError(f"expected line {place} of an example, found {line[:40]!r}", where=where, fix=_FIX)
        sentences.append(checked_text(found[2], "sentence", where))
    if len(block) != _SENTENCES + 1:
        raise InputError(f"this example has {len(block)} lines instead of 21", where=where, fix=_FIX)
    cells = [cell.strip() for cell in sentences.pop().split("\t")]
    if len(cells) != 4:
        raise InputError(f"{len(cells)} column(s), expected 4", where=where, fix=_FIX)
    question, answer, _, joined = cells
    candidates = tuple(dict.fromkeys(filter(None, map(str.strip, joined.split("|")))))  # some are listed twice
    if BLANK not in question:
        raise InputError(f"no {BLANK} in the question", where=where, fix=_FIX)
    if answer not in candidates or len(candidates) < 2:
        raise InputError(f"the answer {answer[:40]!r} is not one of several candidates", where=where, fix=_FIX)
    return Example((tuple(sentences), question, candidates), candidates.index(answer), where, str(number))


def cbt_pairs(example: Example, write: Callable[[str], str]) -> list[Pair]:
    """Return for each candidate the text before the blank, and the candidate with the rest of its sentence.

    `write` turns Treebank tokens into text. Where that joins a candidate to the text before the blank ("do" and "n't"),
    all continuations start at the end of the common prefix.
    """
    sentences, question, candidates = example.fields
    before = write(str(question)[: str(question).index(BLANK)])
    filled = [write(str(question).replace(BLANK, candidate)) for candidate in candidates]
    known = os.path.commonprefix([before, *filled])  # noqa: RUF071, a prefix of characters
    story = "".join(f"{write(sentence)} " for sentence in sentences)
    return [(story + known, sentence[len(known) :]) for sentence in filled]


def _whole(example: Example) -> tuple[str]:
    sentences, question, candidates = example.fields
    return (" ".join([*sentences, str(question).replace(BLANK, candidates[label_of(example)])]),)


def _row(words: str) -> Evaluation:
    published = gpt2("accuracy", *_PAPER.get(words, ()))
    about = f"{_ABOUT}; de-tokenized text (OpenAI's de-tokenizer was never published)"
    raw_about = f"{_ABOUT}; unchanged Treebank tokens"
    written, raw = partial(cbt_pairs, write=TREEBANK.detokenize), partial(cbt_pairs, write=str)
    return Evaluation(
        f"cbt-{words.lower()}",
        partial(cbt, words=words),
        (
            ChoiceProtocol("gpt2", about, published=published, chance=1 / 10, pairs=written),
            ChoiceProtocol("raw", raw_about, chance=1 / 10, pairs=raw),
        ),
        texts=_whole,
        fields=("sentence", "question", "candidate"),
    )


BENCHMARKS = tuple(_row(words) for words in _KINDS)
