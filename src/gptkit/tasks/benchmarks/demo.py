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
from typing import NamedTuple

from gptkit.tasks.benchmarks.story_cloze import ending_protocols
from gptkit.tasks.reading import zero_shot
from gptkit.tasks.task import Format, Task
from gptkit.text.embedded import EmbeddedDocument, embedded_documents
from gptkit.text.examples import Example
from gptkit.text.split import name_hash

ORDER = 99  # after what users add


Fields = tuple[str | tuple[str, ...], ...]
_SPLITS = ("train", "dev", "test")

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
        texts = []
        for document in embedded_documents():
            words = document.text.split()[:60]
            text = " ".join(words)
            if document.package == label and len(words) >= 6 and label not in text.lower():
                texts.append(_Pair(document, text, ""))
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
    return {split: _alternating(pairs, _same_package) for split, pairs in _pairs(_passages).items()}


@cache
def _entailment() -> dict[str, tuple[Example, ...]]:
    return {split: _alternating(pairs, _same_module) for split, pairs in _pairs(_neighbours).items()}


@cache
def _cloze() -> dict[str, tuple[Example, ...]]:
    return {split: _alternating(pairs, _anywhere, endings=True) for split, pairs in _pairs(_endings).items()}


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


_same_package = _NegativePool(lambda pair: pair.document.package, lambda pair, other: pair.document is other.document)
_anywhere = _NegativePool(lambda pair: "", lambda pair, other: pair.document.group == other.document.group)
_same_module = _NegativePool(
    lambda pair: pair.document.group,
    lambda pair, other: other.second in (pair.first, pair.second) or other.first == pair.second,
)


def _alternating(pairs: Sequence[_Pair], pool: _NegativePool, *, endings: bool = False) -> tuple[Example, ...]:
    """Return an example for each pair and the second part of the next one of its pool, labelled 0 and 1 in turn.

    So the wrong parts are the right ones of other examples: nothing about a part alone tells which it is. A pair
    without any in its pool is left out. `endings`: both are there to choose from.
    """
    members: dict[str, list[_Pair]] = defaultdict(list)
    for pair in pairs:
        members[pool.name(pair)].append(pair)
    place = {id(pair): number for group in members.values() for number, pair in enumerate(group)}
    rows: list[tuple[_Pair, Fields, int]] = []
    for pair in pairs:
        group, at = members[pool.name(pair)], place[id(pair)]
        others = (other for other in group[at + 1 :] + group[:at] if not pool.near(pair, other))
        if (negative := next(others, None)) is not None:
            label = len(rows) % 2
            wrong, right = negative.second, pair.second
            fields: Fields = (pair.first, right if label else wrong)
            if endings:
                fields = pair.first, "", (wrong, right) if label else (right, wrong)
            rows.append((pair, fields, label))
    return _numbered(rows)


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


def _assign_splits(sizes: Counter[str], shares: dict[str, float]) -> dict[str, str]:
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
            words = [" ".join(re.findall(r"[a-z0-9]+", part.lower())) for part in (pair.first, pair.second) if part]
            parts = list(enumerate(words))
            if parts_here.intersection(parts) or any(_is_seen(part, runs_before) for part in words):
                continue
            parts_here.update(parts)
            kept[split].append(pair)
            if len(kept[split]) == limits.get(split):
                break
        runs_before.update(run for _, part in parts_here for run in _runs_of(part))
    return kept


def _runs_of(words_alone: str) -> list[str]:
    words = words_alone.split()
    return [" ".join(words[start : start + _RUN]) for start in range(max(1, len(words) - _RUN + 1))]


def _is_seen(words_alone: str, runs: set[str]) -> bool:
    mine = _runs_of(words_alone)
    return sum(run in runs for run in mine) > len(mine) / 2


def _passages(document: EmbeddedDocument) -> Iterator[_Pair]:
    """Pair each passage, as few sentences as have ten words, with the next one of the document."""
    passages = []
    for sentences in _prose(document):
        passage = ""
        for sentence in sentences:
            passage = f"{passage} {sentence}".strip()
            if len(passage.split()) >= 10:
                passages.append(passage)
                passage = ""
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


@cache
def _prose(document: EmbeddedDocument) -> tuple[list[str], ...]:
    """Return the runs of consecutive sentences; what is no prose (code, tables, headings) ends a run."""
    runs: list[list[str]] = [[]]
    for paragraph in re.split(r"\n\s*\n", document.text):
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z\"'(`])", " ".join(paragraph.split())):
            words = sentence.split()
            if len(words) >= 5 and sum(map(_is_plain, words)) >= 0.75 * len(words):
                runs[-1].append(sentence)
            else:
                runs.append([])
    return tuple(run for run in runs if len(run) > 1)


@cache
def _is_plain(word: str) -> bool:
    return re.fullmatch(r"[\"'(]?[A-Za-z][A-Za-z'-]*[\"')]?[.,;:!?]?\)?", word) is not None


def _task(
    format: Format, examples: Callable[[], dict[str, tuple[Example, ...]]], labels: tuple[str, ...], data: str
) -> Task:
    return Task(
        "demo-" + ("cloze" if format == "multiple-choice" else format),
        format,
        f"made here: {data}",
        dict.fromkeys(_SPLITS, ()),
        labels,
        choices=None if labels else 2,
        make=lambda split: examples()[split],
    )


CLOZE = _task("multiple-choice", _cloze, (), "which of two endings is the real one")
BENCHMARKS = (
    _task("classification", _classification, DEMO_LABELS, "which package a docstring is from"),
    _task("similarity", _similarity, ("different", "same"), "do two passages come from the same docstring"),
    _task("entailment", _entailment, ("elsewhere", "follows"), "does the second sentence follow the first"),
    CLOZE,
    zero_shot(CLOZE, "test", *ending_protocols()),
)
