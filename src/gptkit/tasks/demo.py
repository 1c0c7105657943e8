"""Four small tasks made from the embedded corpus, one in each of GPT-1's formats; the text itself tells the labels.

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

from gptkit.text.embedded import EmbeddedDocument, embedded_documents
from gptkit.text.examples import Example
from gptkit.text.split import name_hash

Split = Literal["train", "dev", "test"]
_SPLITS: tuple[Split, ...] = ("train", "dev", "test")

# Packages of many documented modules that are a part of every Python from 3.11 on, however it is packaged.
DEMO_LABELS = ("asyncio", "email", "http", "importlib", "logging", "multiprocessing", "unittest", "xml")

_HELD_OUT = 0.1  # the default of pretrain's --validation
_DEV_SHARE = _TEST_SHARE = 0.2  # of the docstrings of each package of demo-classification
_PAIRS = {"train": 1600, "dev": 300, "test": 300}
_PAIRS_A_DOCUMENT = 8
_RUN = 5  # words that make two texts alike when they share more than half of such runs


def demo_examples(name: str, split: str) -> tuple[Example, ...]:
    """Return the examples of a demo task's split; KeyError for a name that is none.

    Labels: the index in DEMO_LABELS; 1 = one docstring, 1 = follows, the index of the real ending.
    """
    return _TASKS[name]()[split]


@cache
def _classification() -> dict[str, tuple[Example, ...]]:
    sides: dict[str, list[_Anchor]] = {split: [] for split in _SPLITS}
    for label in DEMO_LABELS:
        texts = [anchor for document in embedded_documents() for anchor in _passage(document, label)]
        sizes = Counter(anchor.document.group for anchor in texts)
        side_of = _divide(sizes, {"train": 1 - _DEV_SHARE - _TEST_SHARE, "dev": _DEV_SHARE, "test": _TEST_SHARE})
        for anchor in texts:
            sides[side_of[anchor.document.group]].append(anchor)
    return {
        split: _numbered((anchor, (anchor.first,), DEMO_LABELS.index(anchor.document.package)) for anchor in anchors)
        for split, anchors in _apart(sides, limits={}).items()
    }


@cache
def _similarity() -> dict[str, tuple[Example, ...]]:
    return {split: _yes_or_no(anchors, _same_package) for split, anchors in _pairs(_passages).items()}


@cache
def _entailment() -> dict[str, tuple[Example, ...]]:
    return {split: _yes_or_no(anchors, _same_module) for split, anchors in _pairs(_neighbours).items()}


@cache
def _cloze() -> dict[str, tuple[Example, ...]]:
    made = {}
    for split, anchors in _pairs(_endings).items():
        rows = []
        for number, (anchor, other) in enumerate(_with_others(anchors, _anywhere)):
            label = number % 2
            endings = (other, anchor.second) if label else (anchor.second, other)
            rows.append((anchor, (anchor.first, "", endings), label))
        made[split] = _numbered(rows)
    return made


_TASKS: dict[str, Callable[[], dict[str, tuple[Example, ...]]]] = {
    "demo-classification": _classification,
    "demo-similarity": _similarity,
    "demo-entailment": _entailment,
    "demo-cloze": _cloze,
}


@dataclass(frozen=True)
class _Anchor:
    """What an example is made from: a passage (`second` is empty), or two that belong together."""

    document: EmbeddedDocument
    first: str
    second: str

    @property
    def key(self) -> int:
        """The place in the order of the examples."""
        return name_hash(f"{self.document.module} {self.document.qualname} {self.first} {self.second}")


class _Bucket(NamedTuple):
    """Where the wrong second part may come from: the anchors of one bucket, but not `near` ones."""

    name: Callable[[_Anchor], str]
    near: Callable[[_Anchor, _Anchor], bool]


def _same_document(one: _Anchor, other: _Anchor) -> bool:
    return one.document is other.document


def _same_words(one: _Anchor, other: _Anchor) -> bool:
    return other.second in (one.first, one.second) or other.first == one.second


_same_package = _Bucket(lambda anchor: anchor.document.package, _same_document)
_anywhere = _Bucket(lambda anchor: "", lambda one, other: one.document.group == other.document.group)
_same_module = _Bucket(lambda anchor: anchor.document.group, _same_words)


def _yes_or_no(anchors: Sequence[_Anchor], bucket: _Bucket) -> tuple[Example, ...]:
    """Keep every second pair as it is, and give the others a second part from elsewhere."""
    rows = []
    for number, (anchor, other) in enumerate(_with_others(anchors, bucket)):
        label = number % 2
        rows.append((anchor, (anchor.first, anchor.second if label else other), label))
    return _numbered(rows)


def _with_others(anchors: Sequence[_Anchor], bucket: _Bucket) -> Iterator[tuple[_Anchor, str]]:
    """Yield each anchor with the second part of the next one of its bucket; without any, the anchor is left out.

    So the wrong parts are the right ones of other examples: nothing about a part alone tells which it is.
    """
    members: dict[str, list[_Anchor]] = defaultdict(list)
    for anchor in anchors:
        members[bucket.name(anchor)].append(anchor)
    place = {id(anchor): number for group in members.values() for number, anchor in enumerate(group)}
    for anchor in anchors:
        group, at = members[bucket.name(anchor)], place[id(anchor)]
        others = (other for other in group[at + 1 :] + group[:at] if not bucket.near(anchor, other))
        other = next(others, None)
        if other is not None:
            yield anchor, other.second


def _numbered(rows: Iterable[tuple[_Anchor, tuple[str | tuple[str, ...], ...], int]]) -> tuple[Example, ...]:
    return tuple(
        Example(fields, label, f"{anchor.document.module}:{anchor.document.qualname or 1}", str(number))
        for number, (anchor, fields, label) in enumerate(rows)
    )


def _pairs(anchors_of: Callable[[EmbeddedDocument], Iterator[_Anchor]]) -> dict[str, list[_Anchor]]:
    """Return the anchors of each side: train from what pre-training trains on, dev and test from what it holds out."""
    sizes: Counter[str] = Counter()
    for document in embedded_documents():
        if name_hash(document.group) < _HELD_OUT * 2**64:
            sizes[document.group] += len(document.text)
    side_of = _divide(sizes, {"dev": 0.5, "test": 0.5})
    sides: dict[str, list[_Anchor]] = {split: [] for split in _SPLITS}
    for document in embedded_documents():
        found = sorted(anchors_of(document), key=lambda anchor: anchor.key)
        sides[side_of.get(document.group, "train")] += found[:_PAIRS_A_DOCUMENT]
    return _apart(sides, _PAIRS)


def _divide(sizes: Counter[str], shares: dict[Split, float]) -> dict[str, Split]:
    """Assign whole groups to sides, the largest first, each to the side that lacks most of its share."""
    lacks = {split: share * sizes.total() for split, share in shares.items()}
    side_of = {}
    for group in sorted(sizes, key=lambda group: (-sizes[group], name_hash(group))):
        side = max(lacks, key=lambda split: lacks[split])
        side_of[group] = side
        lacks[side] -= sizes[group]
    return side_of


def _apart(sides: dict[str, list[_Anchor]], limits: dict[str, int]) -> dict[str, list[_Anchor]]:
    """Order, cut to the limits, and leave out what repeats its own side or is much like an earlier side."""
    runs_before: set[str] = set()
    kept: dict[str, list[_Anchor]] = {}
    for split, anchors in sides.items():
        parts_here: set[tuple[int, str]] = set()
        kept[split] = []
        for anchor in sorted(anchors, key=lambda anchor: anchor.key):
            parts = list(enumerate(_words_alone(part) for part in (anchor.first, anchor.second) if part))
            if parts_here.intersection(parts) or any(_is_seen(part, runs_before) for _, part in parts):
                continue
            parts_here.update(parts)
            kept[split].append(anchor)
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


def _passage(document: EmbeddedDocument, package: str) -> Iterator[_Anchor]:
    words = document.text.split()[:60]
    text = " ".join(words)
    if document.package == package and len(words) >= 6 and package not in text.lower():
        yield _Anchor(document, text, "")


def _passages(document: EmbeddedDocument) -> Iterator[_Anchor]:
    """Pair each passage of whole sentences with the next one of the document."""
    passages = [passage for sentences in _prose(document) for passage in _filled(sentences, words=10)]
    for first, second in pairwise(passages):
        yield _Anchor(document, _head(first, 24), _head(second, 24))


def _neighbours(document: EmbeddedDocument) -> Iterator[_Anchor]:
    for sentences in _prose(document):
        for first, second in pairwise(sentences):
            yield _Anchor(document, _head(first, 24), _head(second, 24))


def _endings(document: EmbeddedDocument) -> Iterator[_Anchor]:
    """Pair the words before a sentence with its own."""
    for sentences in _prose(document):
        for at in range(1, len(sentences)):
            context = " ".join(sentences[max(0, at - 3) : at]).split()[-30:]
            yield _Anchor(document, " ".join(context), _head(sentences[at], 16))


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
