"""Sentence pairs of the WMT news tests: the organisers' .sgm files, or a sentence a line in two files.

newstest2014-fren-src.en.sgm + newstest2014-fren-ref.fr.sgm    the test as distributed; documents name the pairs
newstest2014.en + newstest2014.fr                              line by line
newstest2013 in either form                                    its first pairs are shown to the model
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from gptkit.errors import InputError
from gptkit.tasks.cells import text_of
from gptkit.tasks.forms import Form, find_form, form_in
from gptkit.tasks.reading import Loaded, loaded
from gptkit.tasks.rows import lines
from gptkit.text.examples import Example

SHOWN_PAIRS = 5

_DOCUMENT = re.compile(r"<doc\b[^>]*\bdocid=\"([^\"]*)\"", re.IGNORECASE)
_SEGMENT = re.compile(r"\s*<seg\b[^>]*\bid=\"(\d+)\"[^>]*>(.*)</seg>\s*", re.IGNORECASE)


class _Sentence(NamedTuple):
    name: str  # document and segment, or the line
    text: str
    where: str


def wmt14(data: str | None, *, source: str, target: str) -> Loaded:
    """Return newstest2014 as examples (sentence, translation, shown sentences, their translations).

    What is shown comes from newstest2013; where that is not beside it, it is the first pairs of the test itself, which
    are then no examples: a note says so. UsageError without data; InputError, with file and line, for bad files.
    """
    name = f"wmt14-{source}-{target}"
    source_of = "newstest2014 and newstest2013 of statmt.org/wmt14"
    paths = find_form(name, data, _forms("newstest2014", "-fren", source, target), source=source_of)
    pairs = _pairs(*paths)
    notes = []
    if before := form_in(paths[0].parent, _forms("newstest2013", "", source, target)):
        shown = _pairs(*before)[:SHOWN_PAIRS]
    else:
        shown, pairs = pairs[:SHOWN_PAIRS], pairs[SHOWN_PAIRS:]
        notes.append(
            f"no newstest2013 beside it: the model is shown the test's own first {len(shown)} pairs, which do not count"
        )
    if not pairs:
        raise InputError("no pair to translate", where=f"{paths[0]}:1", fix="fetch the whole file again")
    left, right = tuple(one.text for one, _ in shown), tuple(other.text for _, other in shown)
    examples = [Example((one.text, other.text, left, right), None, one.where, one.name) for one, other in pairs]
    return loaded(examples, notes)


def _forms(test: str, pair: str, source: str, target: str) -> Sequence[Form]:
    official = (f"{test}{pair}-src.{source}.sgm", f"{test}{pair}-ref.{target}.sgm")
    return official, (f"{test}.{source}", f"{test}.{target}")


def _pairs(source: Path, target: Path) -> list[tuple[_Sentence, _Sentence]]:
    read = _segments if source.suffix == ".sgm" else _lines
    pairs = []
    for one, other in zip_longest(read(source), read(target)):
        if one is None or other is None or one.name != other.name:
            at, lacks = (one, target) if one is not None else (other, source)
            raise InputError(
                f"sentence {at.name} has no partner in {lacks.name}", where=at.where, fix="fetch both files again"
            )
        pairs.append((one, other))
    return pairs


def _lines(path: Path) -> list[_Sentence]:
    places = ((number, text, f"{path}:{number}") for number, text in lines(path))
    return [_Sentence(str(number), text_of(text, "sentence", where).strip(), where) for number, text, where in places]


def _segments(path: Path) -> list[_Sentence]:
    sentences: list[_Sentence] = []
    document = ""
    for number, line in lines(path):
        where = f"{path}:{number}"
        if found := _DOCUMENT.search(line):
            document = found[1]
        if "<seg" not in line.lower():
            continue
        segment = _SEGMENT.fullmatch(line)
        if segment is None:
            fix = 'a line holds one sentence: <seg id="1">...</seg>'
            raise InputError("a segment that does not begin and end in its line", where=where, fix=fix)
        text = text_of(html.unescape(segment[2]).strip(), "sentence", where)
        sentences.append(_Sentence(f"{document} {segment[1]}".strip(), text, where))
    if not sentences:
        raise InputError("no <seg> in this file", where=f"{path}:1", fix="fetch it again")
    return sentences
