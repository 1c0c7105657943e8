"""Four small tasks made from the embedded corpus, one in each of GPT-1's formats; the text itself gives the labels.

    demo-classification   which package a docstring is from: its first 60 words, never with the package's name in them
    demo-similarity       whether two passages stand in one docstring, or in two of the same package
    demo-entailment       whether the second sentence follows the first, or stands elsewhere in the same module
    demo-cloze            which ending is the next sentence; the other one is from another module

The examples are a pure function of the embedded corpus, equal on every call. No module (and no topic) is on two sides.
For the three tasks of pairs, dev and test come only from the modules that `--validation 0.1` keeps from pre-training.
These are too few for packages, so demo-classification divides the modules of each package on its own: pre-training
has read most of its dev and test docstrings, without their labels.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal, NamedTuple

from gptkit.tasks.benchmarks.story_cloze import ending_protocols
from gptkit.tasks.reading import zero_shot
from gptkit.tasks.task import Format, Task
from gptkit.text.embedded import EmbeddedDocument, embedded_documents
from gptkit.text.examples import Example
from gptkit.text.split import name_hash

ORDER = 99  # after what users add

Split = Literal["train", "dev", "test"]
Fields = tuple[str | tuple[str, ...], ...]
_SPLITS: tuple[Split, ...] = ("train", "dev", "test")

# Packages of many documented modules that are a part of every Python from 3.11 on, however it is packaged.
DEMO_LABELS = ("asyncio", "email", "http", "importlib", "logging", "multiprocessing", "unittest", "xml")

_HELD_OUT = 0.1  # the default of pretrain's --validation
_DEV_SHARE = _TEST_SHARE = 0.2  # of the docstrings of each package of demo-classification
_PAIRS = {"train": 1600, "dev": 300, "test": 300}
_PAIRS_A_DOCUMENT = 8
_RUN = 5  # words that make two texts alike when they share more than half of such runs


@cache
def _classification() -> dict[str, tuple[Example, ...]]:
    sides: dict[str, list[_Pair]] = {split: [] for split in _SPLITS}
    for label in DEMO_LABELS:
        texts = [pair for document in embedded_documents() for pair in _passage(document, label)]
        sizes = Counter(pair.document.group for pair in texts)
        side_of = _assign_splits(sizes, {"train": 1 - _DEV_SHARE - _TEST_SHARE, "dev": _DEV_SHARE, "test": _TEST_SHARE})
        for pair in texts:
            sides[side_of[pair.document.group]].append(pair)
    return {
        split: _numbered((pair, (pair.first,), DEMO_LABELS.index(pair.document.package)) for pair in pairs)
        for split, pairs in _deduplicate(sides, limits={}).items()
    }


@cache
def _similarity() -> dict[str, tuple[Example, ...]]:
    return {split: _alternating(pairs, _same_package, _yes_or_no) for split, pairs in _pairs(_passages).items()}


@cache
def _entailment() -> dict[str, tuple[Example, ...]]:
    return {split: _alternating(pairs, _same_module, _yes_or_no) for split, pairs in _pairs(_neighbours).items()}


@cache
def _cloze() -> dict[str, tuple[Example, ...]]:
    return {split: _alternating(pairs, _anywhere, _two_endings) for split, pairs in _pairs(_endings).items()}


@dataclass(frozen=True)
class _Pair:
    """What an example is made from: a passage (`second` is empty), or two that belong together."""

    document: EmbeddedDocument
    first: str
    second: str

    @property
    def key(self) -> int:
        """The place in the order of the examples."""
        return name_hash(f"{self.document.module} {self.document.qualname} {self.first} {self.second}")


class _NegativePool(NamedTuple):
    """Where the wrong second part may come from: the pairs of one pool, but not `near` ones."""

    name: Callable[[_Pair], str]
    near: Callable[[_Pair, _Pair], bool]


def _same_document(pair: _Pair, other: _Pair) -> bool:
    return pair.document is other.document


def _same_words(pair: _Pair, other: _Pair) -> bool:
    return other.second in (pair.first, pair.second) or other.first == pair.second


_same_package = _NegativePool(lambda pair: pair.document.package, _same_document)
_anywhere = _NegativePool(lambda pair: "", lambda pair, other: pair.document.group == other.document.group)
_same_module = _NegativePool(lambda pair: pair.document.group, _same_words)


def _alternating(
    pairs: Sequence[_Pair], pool: _NegativePool, fields_of: Callable[[_Pair, str, int], Fields]
) -> tuple[Example, ...]:
    """Return an example for each pair and a second part from elsewhere, labelled 0 and 1 in turn."""
    negatives = enumerate(_with_negatives(pairs, pool))
    return _numbered((pair, fields_of(pair, other, number % 2), number % 2) for number, (pair, other) in negatives)


def _yes_or_no(pair: _Pair, other: str, label: int) -> Fields:
    return pair.first, pair.second if label else other


def _two_endings(pair: _Pair, other: str, label: int) -> Fields:
    return pair.first, "", (other, pair.second) if label else (pair.second, other)


def _with_negatives(pairs: Sequence[_Pair], pool: _NegativePool) -> Iterator[tuple[_Pair, str]]:
    """Yield each pair with the second part of the next one of its pool; without any, the pair is left out.

    So the wrong parts are the right ones of other examples: nothing about a part alone tells which it is.
    """
    members: dict[str, list[_Pair]] = defaultdict(list)
    for pair in pairs:
        members[pool.name(pair)].append(pair)
    place = {id(pair): number for group in members.values() for number, pair in enumerate(group)}
    for pair in pairs:
        group, at = members[pool.name(pair)], place[id(pair)]
        others = (other for other in group[at + 1 :] + group[:at] if not pool.near(pair, other))
        other = next(others, None)
        if other is not None:
            yield pair, other.second


def _numbered(rows: Iterable[tuple[_Pair, Fields, int]]) -> tuple[Example, ...]:
    return tuple(
        Example(fields, label, f"{pair.document.module}:{pair.document.qualname or 1}", str(number))
        for number, (pair, fields, label) in enumerate(rows)
    )


def _pairs(pairs_of: Callable[[EmbeddedDocument], Iterator[_Pair]]) -> dict[str, list[_Pair]]:
    """Return the pairs of each side: train from what pre-training trains on, dev and test from what it holds out."""
    sizes: Counter[str] = Counter()
    for document in embedded_documents():
        if name_hash(document.group) < _HELD_OUT * 2**64:
            sizes[document.group] += len(document.text)
    side_of = _assign_splits(sizes, {"dev": 0.5, "test": 0.5})
    sides: dict[str, list[_Pair]] = {split: [] for split in _SPLITS}
    for document in embedded_documents():
        found = sorted(pairs_of(document), key=lambda pair: pair.key)
        sides[side_of.get(document.group, "train")] += found[:_PAIRS_A_DOCUMENT]
    return _deduplicate(sides, _PAIRS)


def _assign_splits(sizes: Counter[str], shares: dict[Split, float]) -> dict[str, Split]:
    """Assign whole groups to sides, the largest first, each to the side that lacks most of its fraction."""
    lacks = {split: share * sizes.total() for split, share in shares.items()}
    side_of = {}
    for group in sorted(sizes, key=lambda group: (-sizes[group], name_hash(group))):
        side = max(lacks, key=lambda split: lacks[split])
        side_of[group] = side
        lacks[side] -= sizes[group]
    return side_of


def _deduplicate(sides: dict[str, list[_Pair]], limits: dict[str, int]) -> dict[str, list[_Pair]]:
    """Order, cut to the limits, and leave out what repeats its own side or is much like an earlier side."""
    runs_before: set[str] = set()
    kept: dict[str, list[_Pair]] = {}
    for split, pairs in sides.items():
        parts_here: set[tuple[int, str]] = set()
        kept[split] = []
        for pair in sorted(pairs, key=lambda pair: pair.key):
            parts = list(enumerate(_words_alone(part) for part in (pair.first, pair.second) if part))
            if parts_here.intersection(parts) or any(_is_seen(part, runs_before) for _, part in parts):
                continue
            parts_here.update(parts)
            kept[split].append(pair)
            if len(kept[split]) == limits.get(split):
                break
        runs_before.update(run for _, part in parts_here for run in _runs_of(part))
    return kept


def _words_alone(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def _runs_of(words_alone: str) -> list[str]:
    words = words_alone.split()
    return [" ".join(words[start : start + _RUN]) for start in range(max(1, len(words) - _RUN + 1))]


def _is_seen(words_alone: str, runs: set[str]) -> bool:
    mine = _runs_of(words_alone)
    return sum(run in runs for run in mine) > len(mine) / 2


def _passage(document: EmbeddedDocument, package: str) -> Iterator[_Pair]:
    words = document.text.split()[:60]
    text = " ".join(words)
    if document.package == package and len(words) >= 6 and package not in text.lower():
        yield _Pair(document, text, "")


def _passages(document: EmbeddedDocument) -> Iterator[_Pair]:
    """Pair each passage of whole sentences with the next one of the document."""
    passages = [passage for sentences in _prose(document) for passage in _filled(sentences, words=10)]
    for first, second in pairwise(passages):
        yield _Pair(document, _head(first, 24), _head(second, 24))


def _neighbours(document: EmbeddedDocument) -> Iterator[_Pair]:
    for sentences in _prose(document):
        for first, second in pairwise(sentences):
            yield _Pair(document, _head(first, 24), _head(second, 24))


def _endings(document: EmbeddedDocument) -> Iterator[_Pair]:
    """Pair the words before a sentence with its own."""
    for sentences in _prose(document):
        for at in range(1, len(sentences)):
            context = " ".join(sentences[max(0, at - 3) : at]).split()[-30:]
            yield _Pair(document, " ".join(context), _head(sentences[at], 16))


def _head(text: str, words: int) -> str:
    return " ".join(text.split()[:words])


def _filled(sentences: Iterable[str], words: int) -> list[str]:
    """Join sentences until each passage has that many words at least; what is left over belongs to none."""
    passages, open_passage = [], ""
    for sentence in sentences:
        open_passage = f"{open_passage} {sentence}".strip()
        if len(open_passage.split()) >= words:
            passages.append(open_passage)
            open_passage = ""
    return passages


@cache
def _prose(document: EmbeddedDocument) -> tuple[list[str], ...]:
    """Return the runs of consecutive sentences; what is no prose (code, tables, headings) ends a run."""
    runs: list[list[str]] = [[]]
    for paragraph in re.split(r"\n\s*\n", document.text):
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z\"'(`])", " ".join(paragraph.split())):
            if _is_sentence(sentence):
                runs[-1].append(sentence)
            else:
                runs.append([])
    return tuple(run for run in runs if len(run) > 1)


def _is_sentence(text: str) -> bool:
    words = text.split()
    return len(words) >= 5 and sum(map(_is_plain, words)) >= 0.75 * len(words)


@cache
def _is_plain(word: str) -> bool:
    return re.fullmatch(r"[\"'(]?[A-Za-z][A-Za-z'-]*[\"')]?[.,;:!?]?\)?", word) is not None


def _task(
    name: str,
    format: Format,
    examples: Callable[[], dict[str, tuple[Example, ...]]],
    labels: tuple[str, ...],
    data: str,
) -> Task:
    return Task(
        name,
        format,
        f"made here: {data}",
        {split: () for split in _SPLITS},
        labels,
        choices=None if labels else 2,
        make=lambda split: examples()[split],
    )


CLOZE = _task("demo-cloze", "multiple-choice", _cloze, (), "which of two endings is the real one")
BENCHMARKS = (
    _task("demo-classification", "classification", _classification, DEMO_LABELS, "which package a docstring is from"),
    _task(
        "demo-similarity",
        "similarity",
        _similarity,
        ("different", "same"),
        "do two passages come from the same docstring",
    ),
    _task(
        "demo-entailment",
        "entailment",
        _entailment,
        ("elsewhere", "follows"),
        "does the second sentence follow the first",
    ),
    CLOZE,
    zero_shot(CLOZE, "test", "which of two endings a docstring of the embedded corpus has", *ending_protocols()),
)
