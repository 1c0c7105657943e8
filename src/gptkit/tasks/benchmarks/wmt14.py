"""WMT14 news: few-shot translation (GPT-2 paper, section 3.7), scored by BLEU (Papineni et al. 2002).

Sentence pairs come from the organizers' .sgm files, or from two files with one sentence per line.

newstest2014-fren-src.en.sgm + newstest2014-fren-ref.fr.sgm    the test set as distributed, with document names
newstest2014.en + newstest2014.fr                              line by line
newstest2013 in either form                                    its first pairs are the few-shot examples
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
from gptkit.tasks.files import FileSet, checked_text, find_files, first_complete, lines
from gptkit.tasks.task import Evaluation, Loaded, loaded
from gptkit.text.examples import Example
from gptkit.text.words import unseparated

FEW_SHOT = 5

_DOCUMENT = re.compile(r"<doc\b[^>]*\bdocid=\"([^\"]*)\"", re.IGNORECASE)
_SEGMENT = re.compile(r"\s*<seg\b[^>]*\bid=\"(\d+)\"[^>]*>(.*)</seg>\s*", re.IGNORECASE)


class _Sentence(NamedTuple):
    name: str  # document and segment, or the line
    text: str
    where: str


def wmt14(data: str | None, *, source: str, target: str) -> Loaded:
    """Return newstest2014: fields = (sentence, translation, few-shot sentences, their translations).

    Few-shot pairs come from newstest2013; if that is missing, the first pairs of the test set take their place and are
    not examples, as a note reports. UsageError without data; InputError, with file and line, for bad files.
    """
    name = f"wmt14-{source}-{target}"
    source_of = "newstest2014 and newstest2013 of statmt.org/wmt14"
    paths = find_files(name, data, _files("newstest2014", "-fren", source, target), source=source_of)
    pairs = _pairs(*paths)
    notes = []
    if before := first_complete([paths[0].parent], _files("newstest2013", "", source, target)):
        few_shot = _pairs(*before[1])[:FEW_SHOT]
    else:
        few_shot, pairs = pairs[:FEW_SHOT], pairs[FEW_SHOT:]
        note = f"the first {len(few_shot)} pairs of the test set are used as few-shot examples and are not scored"
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
            message = f"sentence {at.name} has no counterpart in {lacks.name}"
            raise InputError(message, where=at.where, fix="fetch both files again")
        pairs.append((left, right))
    return pairs


def _sentences(path: Path) -> list[_Sentence]:
    """Return the sentences of an .sgm file, or the lines of another."""
    found: list[_Sentence] = []
    document = ""
    for number, (where, line) in enumerate(lines(path), 1):
        if path.suffix != ".sgm":
            found.append(_Sentence(str(number), checked_text(line, "sentence", where).strip(), where))
            continue
        if opening := _DOCUMENT.search(line):
            document = opening[1]
        if "<seg" not in line.lower():
            continue
        segment = _SEGMENT.fullmatch(line)
        if segment is None:
            fix = 'write one sentence per line: <seg id="1">...</seg>'
            raise InputError("this segment does not begin and end on its line", where=where, fix=fix)
        text = checked_text(html.unescape(segment[2]).strip(), "sentence", where)
        found.append(_Sentence(f"{document} {segment[1]}".strip(), text, where))
    if path.suffix == ".sgm" and not found:
        raise InputError("no <seg> in this file", where=f"{path}:1", fix="fetch it again")
    return found


def bleu_columns(translations: Sequence[str], references: Sequence[str]) -> dict[str, Column]:
    """Return each translation's matching and total n-grams and both lengths; case-sensitive, mteval-v13a tokens."""
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
    references = [str(example.fields[1]) for example in examples]
    reason = unseparated(sum(len(reference.split()) for reference in references), references)
    undefined = {"bleu": reason} if reason else {}
    identifiers = tuple(example.identifier for example in examples)
    return Items(identifiers, bleu_columns(translations, references), undefined=undefined)


def _evaluation(source: str, target: str, bleu: float) -> Evaluation:
    protocol = GeneratedProtocol(
        "pairs",
        "after five lines `sentence = translation`, greedy, up to the end of the first line or sentence; "
        "corpus BLEU by sacrebleu, 13a tokens, case-sensitive",
        ("bleu",),
        published=(Published("GPT-2 1542M", "bleu", bleu, "GPT-2 paper, section 3.7"),),
        chance=0.0,
        prompt=_prompt,
        items=_items,
        options={"greedy": True, "max_new_tokens": 100, "stop": ("\n",)},
    )
    return Evaluation(
        f"wmt14-{source}-{target}",
        partial(wmt14, source=source, target=target),
        (protocol,),
        texts=lambda example: (str(example.fields[0]), str(example.fields[1])),
        fields=("sentence", "translation", "few-shot sentence", "few-shot translation"),
    )


BENCHMARKS = (_evaluation("en", "fr", 5.0), _evaluation("fr", "en", 11.5))
