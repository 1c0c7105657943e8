"""WMT14's news: translation after example pairs (GPT-2 paper, section 3.7), scored by BLEU (Papineni et al. 2002).

Sentence pairs are the organisers' .sgm files, or a sentence a line in two files.

newstest2014-fren-src.en.sgm + newstest2014-fren-ref.fr.sgm    the test as distributed; documents name the pairs
newstest2014.en + newstest2014.fr                              line by line
newstest2013 in either form                                    its first pairs are shown to the model
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptkit.errors import InputError
from gptkit.scoring.protocols import Column, Generated, GeneratedProtocol, Items, Published
from gptkit.scoring.resampling import BLEU_COLUMNS
from gptkit.scoring.written_answers import import_extra, sentences
from gptkit.tasks.files import FileSet, checked_text, find_files, first_whole, lines
from gptkit.tasks.task import Evaluation, Loaded, loaded
from gptkit.text.examples import Example

FEW_SHOT = 5

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
    paths = find_files(name, data, _files("newstest2014", "-fren", source, target), source=source_of)
    pairs = _pairs(*paths)
    notes = []
    if before := first_whole([paths[0].parent], _files("newstest2013", "", source, target)):
        few_shot = _pairs(*before[1])[:FEW_SHOT]
    else:
        few_shot, pairs = pairs[:FEW_SHOT], pairs[FEW_SHOT:]
        note = f"the model is shown the test's own first {len(few_shot)} pairs, which do not count"
        notes.append(f"no newstest2013 beside it: {note}")
    if not pairs:
        raise InputError("no pair to translate", where=f"{paths[0]}:1", fix="fetch the whole file again")
    shown = tuple(left.text for left, _ in few_shot), tuple(right.text for _, right in few_shot)
    examples = [Example((left.text, right.text, *shown), None, left.where, left.name) for left, right in pairs]
    return loaded(examples, notes)


def _files(test: str, pair: str, source: str, target: str) -> Sequence[FileSet]:
    official = (f"{test}{pair}-src.{source}.sgm", f"{test}{pair}-ref.{target}.sgm")
    return official, (f"{test}.{source}", f"{test}.{target}")


def _pairs(source: Path, target: Path) -> list[tuple[_Sentence, _Sentence]]:
    pairs = []
    for left, right in zip_longest(_sentences(source), _sentences(target)):
        if left is None or right is None or left.name != right.name:
            at, lacks = (left, target) if left is not None else (right, source)
            message = f"sentence {at.name} has no partner in {lacks.name}"
            raise InputError(message, where=at.where, fix="fetch both files again")
        pairs.append((left, right))
    return pairs


def _sentences(path: Path) -> list[_Sentence]:
    """Return the sentences of an .sgm file, or the lines of another."""
    found: list[_Sentence] = []
    document = ""
    for number, line in lines(path):
        where = f"{path}:{number}"
        if path.suffix != ".sgm":
            found.append(_Sentence(str(number), checked_text(line, "sentence", where).strip(), where))
            continue
        if opening := _DOCUMENT.search(line):
            document = opening[1]
        if "<seg" not in line.lower():
            continue
        segment = _SEGMENT.fullmatch(line)
        if segment is None:
            fix = 'a line holds one sentence: <seg id="1">...</seg>'
            raise InputError("a segment that does not begin and end in its line", where=where, fix=fix)
        text = checked_text(html.unescape(segment[2]).strip(), "sentence", where)
        found.append(_Sentence(f"{document} {segment[1]}".strip(), text, where))
    if path.suffix == ".sgm" and not found:
        raise InputError("no <seg> in this file", where=f"{path}:1", fix="fetch it again")
    return found


def bleu_columns(translations: Sequence[str], references: Sequence[str]) -> dict[str, Column]:
    """Return the matching and all n-grams and the lengths of each translation, case kept, tokens by mteval-v13a."""
    scorer = import_extra("sacrebleu.metrics", "sacrebleu").BLEU(tokenize="13a", force=True)
    rows = []
    for translation, reference in zip(translations, references, strict=True):
        found = scorer.corpus_score([translation], [[reference]])
        rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
    table = np.array(rows, dtype=np.float64).reshape(-1, len(BLEU_COLUMNS))  # (item, statistic)
    return dict(zip(BLEU_COLUMNS, table.T, strict=True))


def _prompt(example: Example) -> str:
    sentence, _, *few_shot = example.fields
    pairs = [f"{left} = {right}\n" for left, right in zip(*few_shot, strict=True)]
    return "".join([*pairs, f"{sentence} ="])


def _items(examples: Sequence[Example], texts: Sequence[Generated]) -> Items:
    translations = ["".join(sentences(text.text)[:1]) for text in texts]
    columns = bleu_columns(translations, [str(example.fields[1]) for example in examples])
    return Items(tuple(example.identifier for example in examples), columns)


def _evaluation(source: str, target: str, languages: str, bleu: float) -> Evaluation:
    protocol = GeneratedProtocol(
        "pairs",
        "after five lines `sentence = translation`, greedy, cut at the first line or sentence end; "
        "corpus BLEU of sacrebleu, tokens by 13a, case kept",
        ("bleu",),
        published=(Published("GPT-2 1542M", "bleu", bleu, "Radford et al. 2019, section 3.7"),),
        chance=0.0,
        prompt=_prompt,
        items=_items,
        options={"greedy": True, "max_new_tokens": 100, "stop": ("\n",)},
    )
    return Evaluation(
        name=f"wmt14-{source}-{target}",
        about=f"news translated from {languages}",
        data=f"newstest2014-fren-src.{source}.sgm and -ref.{target}.sgm, or newstest2014.{source} and .{target}; "
        "newstest2013 beside them for the example pairs",
        load=partial(wmt14, source=source, target=target),
        protocols=(protocol,),
        size=3_003,
        texts=lambda example: (str(example.fields[0]), str(example.fields[1])),
    )


BENCHMARKS = (_evaluation("en", "fr", "English into French", 5.0), _evaluation("fr", "en", "French into English", 11.5))
