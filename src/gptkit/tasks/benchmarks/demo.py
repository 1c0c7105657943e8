"""Demo tasks: four small labelled tasks generated from the embedded corpus, one in each of GPT-1's formats.

    demo-classification   which package a docstring is from, given its first 60 words if they do not name it
    demo-similarity       whether two passages are from the same docstring, or from two of the same package
    demo-entailment       whether the second sentence follows the first, or is from elsewhere in the same module
    demo-cloze            which ending is the next sentence; the other one is from another module

The laptop model learns to classify (67% on dev, 19% by chance) and which words belong to one subject: zero-shot it
tells 65 to 70% of the endings by `gain` (counting the words shared with the context: 81%). The other two tasks, whose
wrong parts are about the same subject, it leaves near 50%.

Labels come from the text itself. Examples depend only on the embedded corpus, and no module (or topic) is in two
splits. In the three tasks of pairs, dev and test come only from modules that pretrain's `--validation 0.1` holds out.
These are too few for packages, so demo-classification splits the modules of each package separately: pre-training has
seen most of its dev and test docstrings, without their labels.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from gptkit.scoring.choices import ChoiceProtocol, ending_pairs, ending_protocols
from gptkit.tasks.reading import zero_shot
from gptkit.tasks.task import SPLITS, Format, Task
from gptkit.text.embedded import EmbeddedDocument, embedded_documents
from gptkit.text.examples import Example
from gptkit.text.split import name_hash

ORDER = 99  # after benchmarks that users add

Fields = tuple[str | tuple[str, ...], ...]
Splits = dict[str, tuple[Example, ...]]

# Packages with many documented modules that every Python from 3.11 on includes, however it is packaged.
DEMO_LABELS = ("asyncio", "email", "http", "importlib", "logging", "multiprocessing", "unittest", "xml")

_HELD_OUT = 0.1  # the default of pretrain's --validation
_CLASSIFICATION_FRACTIONS = {"train": 0.6, "dev": 0.2, "test": 0.2}  # of each package's docstrings
_PAIRS = {"train": 1600, "dev": 300, "test": 300}
_PAIRS_PER_DOCUMENT = 8
_NGRAM = 5  # words; texts are near-duplicates if they share more than half of their n-grams


@cache
def _classification() -> Splits:
    splits: dict[str, list[_Pair]] = {split: [] for split in SPLITS}
    for label in DEMO_LABELS:
        texts = []
        for document in embedded_documents():
            words = document.text.split()[:60]
            text = " ".join(words)
            if document.package == label and len(words) >= 6 and label not in text.lower():
                texts.append(_Pair(document, text, ""))
        sizes = Counter(pair.document.group for pair in texts)
        split_of = _assign_splits(sizes, _CLASSIFICATION_FRACTIONS)
        for pair in texts:
            splits[split_of[pair.document.group]].append(pair)
    return {
        split: _numbered((pair, (pair.first,), DEMO_LABELS.index(pair.document.package)) for pair in pairs)
        for split, pairs in _deduplicate(splits, limits={}).items()
    }


@cache
def _paired(
    pairs_of: Callable[[EmbeddedDocument], Iterator[_Pair]], pool: _NegativePool, endings: bool = False
) -> Splits:
    return {split: _alternating(pairs, pool, endings=endings) for split, pairs in _pairs(pairs_of).items()}


@dataclass(frozen=True)
class _Pair:
    """The source of an example: one passage (`second` is empty), or two that belong together."""

    document: EmbeddedDocument
    first: str
    second: str

    @property
    def key(self) -> int:
        """The sort key that orders the examples."""
        return name_hash(f"{self.document.module} {self.document.qualname} {self.first} {self.second}")


class _NegativePool(NamedTuple):
    """The pairs that may lend their second part as a wrong one: those of the same pool, unless `near`."""

    name: Callable[[_Pair], str]
    near: Callable[[_Pair, _Pair], bool]


_same_package = _NegativePool(lambda pair: pair.document.package, lambda pair, other: pair.document is other.document)
_anywhere = _NegativePool(lambda pair: "", lambda pair, other: pair.document.group == other.document.group)
_same_module = _NegativePool(
    lambda pair: pair.document.group,
    lambda pair, other: other.second in (pair.first, pair.second) or other.first == pair.second,
)


def _alternating(pairs: Sequence[_Pair], pool: _NegativePool, *, endings: bool = False) -> tuple[Example, ...]:
    """Return an example for each pair and the second part of the next pair in its pool, labelled 0 and 1 in turn.

    Wrong parts are the right ones of other examples, so a part by itself does not reveal its label. A pair without
    another in its pool is left out. `endings`: the example has both parts, as choices.
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
    """Return the pairs of each split: train from what pre-training trains on, dev and test from what it holds out."""
    sizes: Counter[str] = Counter()
    for document in embedded_documents():
        if name_hash(document.group) < _HELD_OUT * 2**64:
            sizes[document.group] += len(document.text)
    split_of = _assign_splits(sizes, {"dev": 0.5, "test": 0.5})
    splits: dict[str, list[_Pair]] = {split: [] for split in SPLITS}
    for document in embedded_documents():
        found = sorted(pairs_of(document), key=lambda pair: pair.key)
        splits[split_of.get(document.group, "train")] += found[:_PAIRS_PER_DOCUMENT]
    return _deduplicate(splits, _PAIRS)


def _assign_splits(sizes: Counter[str], fractions: dict[str, float]) -> dict[str, str]:
    """Assign whole groups to splits, the largest first, each to the split that is furthest below its fraction."""
    lacking = {split: fraction * sizes.total() for split, fraction in fractions.items()}
    split_of = {}
    for group in sorted(sizes, key=lambda group: (-sizes[group], name_hash(group))):
        split_of[group] = max(lacking, key=lambda split: lacking[split])
        lacking[split_of[group]] -= sizes[group]
    return split_of


def _deduplicate(splits: dict[str, list[_Pair]], limits: dict[str, int]) -> dict[str, list[_Pair]]:
    """Sort and limit each split, without repetitions within it and near-duplicates of an earlier split."""
    earlier_ngrams: set[str] = set()
    kept: dict[str, list[_Pair]] = {}
    for split, pairs in splits.items():
        own_parts: set[tuple[int, str]] = set()
        kept[split] = []
        for pair in sorted(pairs, key=lambda pair: pair.key):
            words = [" ".join(re.findall(r"[a-z0-9]+", part.lower())) for part in (pair.first, pair.second) if part]
            parts = list(enumerate(words))
            if own_parts.intersection(parts) or any(_is_near_duplicate(part, earlier_ngrams) for part in words):
                continue
            own_parts.update(parts)
            kept[split].append(pair)
            if len(kept[split]) == limits.get(split):
                break
        earlier_ngrams.update(ngram for _, part in own_parts for ngram in _ngrams(part))
    return kept


def _ngrams(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[start : start + _NGRAM]) for start in range(max(1, len(words) - _NGRAM + 1))]


def _is_near_duplicate(text: str, ngrams: set[str]) -> bool:
    own = _ngrams(text)
    return sum(ngram in ngrams for ngram in own) > len(own) / 2


def _passages(document: EmbeddedDocument) -> Iterator[_Pair]:
    """Pair each passage, the fewest sentences with ten words, with the next one in the document."""
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


def _sentences(document: EmbeddedDocument) -> Iterator[_Pair]:
    """Pair each sentence with the next one."""
    for sentences in _prose(document):
        for first, second in pairwise(sentences):
            yield _Pair(document, _head(first, 24), _head(second, 24))


def _endings(document: EmbeddedDocument) -> Iterator[_Pair]:
    """Pair each sentence with the 30 words before it."""
    for sentences in _prose(document):
        for at in range(1, len(sentences)):
            context = " ".join(sentences[max(0, at - 3) : at]).split()[-30:]
            yield _Pair(document, " ".join(context), _head(sentences[at], 16))


def _head(text: str, words: int) -> str:
    return " ".join(text.split()[:words])


@cache
def _prose(document: EmbeddedDocument) -> tuple[list[str], ...]:
    """Return the runs of consecutive sentences, which code, tables and headings end."""
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


def _task(format: Format, labels: tuple[str, ...], data: str, examples: Callable[..., Splits], *how: Any) -> Task:
    """Return a demo task whose splits are `examples(*how)`."""
    return Task(
        "demo-" + ("cloze" if format == "multiple-choice" else format),
        format,
        f"generated from Python's documentation: {data}",
        dict.fromkeys(SPLITS, ()),
        labels,
        choices=None if labels else 2,
        make=lambda split: examples(*how)[split],
    )


CLOZE = _task("multiple-choice", (), "which of two endings is the real one", _paired, _endings, _anywhere, True)
# Fluent endings of common words are likely after any context; what the context adds tells the two apart.
_GAIN = ChoiceProtocol(
    "gain",
    "by how much the context raises the ending's log-probability above that of the ending alone (GPT-3, section 2.4)",
    pairs=ending_pairs,
    by_gain=True,
)
_SAME_DOCSTRING = "whether two passages share a docstring (the laptop model stays at chance, 50%)"
_CONSECUTIVE = "whether two sentences are consecutive (the laptop model stays near chance, 50%)"
BENCHMARKS = (
    _task("classification", DEMO_LABELS, "which package a docstring is from", _classification),
    _task("similarity", ("different", "same"), _SAME_DOCSTRING, _paired, _passages, _same_package),
    _task("entailment", ("elsewhere", "follows"), _CONSECUTIVE, _paired, _sentences, _same_module),
    CLOZE,
    zero_shot(CLOZE, "test", _GAIN, *ending_protocols()),
)
