"""The examples of a split as token ids: flat arrays, from which any choice of examples becomes a padded batch.

texts -> ids of each text, once -> sequences of each example -> (example, sequence, length)

What a GPT reads of an example (GPT-1 paper, section 3.3 and figure 1):

    classification    start text extract
    entailment        start premise delimiter hypothesis extract
    similarity        start first delimiter second extract, and the same with second before first
    multiple-choice   start context question delimiter choice extract, for each choice

One rule cuts what is too long: every field keeps its first c tokens, with the largest c that fits the limit. So the
longest field gives first, no marker is ever lost, and the two orders of a pair and all choices see the same tokens.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import InputError
from gptkit.tasks.task import Target
from gptkit.text.examples import Example
from gptkit.text.pieces import Piece
from gptkit.text.tokenizers.encoding import encode_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = list[int]
Targets = NDArray[np.int64] | NDArray[np.float32]
Indices = NDArray[np.int64]

HIGHEST_SCORE = 5  # of STS-B, whose soft scores are distributions over 0 to 5
PADDING_ID = 0
LENGTH_MULTIPLE = 8  # of padded lengths: a library or a compiler makes a kernel for every shape that it has not seen


class Markers(NamedTuple):
    """Ids of the tokens that fine-tuning adds; no text spells them."""

    start: int
    delimiter: int
    extract: int


@dataclass(frozen=True)
class Formatted:
    """The sequences of one example, and the names of the fields that were cut."""

    sequences: tuple[Ids, ...]
    truncated: tuple[str, ...]


def classification(text: Ids, markers: Markers, limit: int) -> Formatted:
    """Return one sequence of at most `limit` tokens."""
    kept, truncated = _fit({"text": len(text)}, limit - 2)
    return Formatted(([markers.start, *text[:kept], markers.extract],), truncated)


def entailment(premise: Ids, hypothesis: Ids, markers: Markers, limit: int) -> Formatted:
    """Return one sequence of at most `limit` tokens."""
    kept, truncated = _fit({"premise": len(premise), "hypothesis": len(hypothesis)}, limit - 3)
    return Formatted((_pair(premise[:kept], hypothesis[:kept], markers),), truncated)


def similarity(first: Ids, second: Ids, markers: Markers, limit: int) -> Formatted:
    """Return both orders of the pair, each of at most `limit` tokens."""
    kept, truncated = _fit({"first": len(first), "second": len(second)}, limit - 3)
    first, second = first[:kept], second[:kept]
    return Formatted((_pair(first, second, markers), _pair(second, first, markers)), truncated)


def multiple_choice(context: Ids, question: Ids, choices: Sequence[Ids], markers: Markers, limit: int) -> Formatted:
    """Return a sequence of at most `limit` tokens for each choice; nothing stands between context and question."""
    lengths = {"context": len(context), "question": len(question), "choices": max(map(len, choices))}
    kept, truncated = _fit(lengths, limit - 3)
    asked = context[:kept] + question[:kept]
    return Formatted(tuple(_pair(asked, choice[:kept], markers) for choice in choices), truncated)


def format_example(task_format: str, fields: Sequence[Any], markers: Markers, limit: int) -> Formatted:
    """Return an example's sequences, given the ids of each of FORMAT_FIELDS (a sequence of ids for each choice).

    ValueError when `limit` does not hold the markers and a token of each field.
    """
    return _FORMATS[task_format](*fields, markers, limit)


_FORMATS: dict[str, Callable[..., Formatted]] = {
    "classification": classification,
    "entailment": entailment,
    "similarity": similarity,
    "multiple-choice": multiple_choice,
}


def _pair(first: Ids, second: Ids, markers: Markers) -> Ids:
    return [markers.start, *first, markers.delimiter, *second, markers.extract]


def _fit(lengths: Mapping[str, int], room: int) -> tuple[int, tuple[str, ...]]:
    """Return how many tokens each field may keep, the most that fit into `room`, and which fields have more."""
    if room < len(lengths):
        raise ValueError(f"no room for {' and '.join(lengths)}: {max(0, room)} tokens beside the markers")
    kept = max(lengths.values())  # or else the largest share with sum(min(length, share)) <= room
    in_order = sorted(lengths.values())
    for i, length in enumerate(in_order):
        share = room // (len(in_order) - i)
        if length > share:
            kept = share
            break
        room -= length
    return kept, tuple(name for name, length in lengths.items() if length > kept)


@dataclass(frozen=True, eq=False)
class EncodedExamples:
    """All sequences of a split, one after the other: sequence s is ids[offsets[s] : offsets[s + 1]].

    `targets` are classes or choices (example,), scores (example,), soft scores (example, score), or None without
    labels. `truncated` counts the examples in which a field was cut, by field, `n_truncated` those with any.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sequences_per_example: int
    targets: Targets | None
    truncated: dict[str, int]
    n_truncated: int

    def __len__(self) -> int:
        return (len(self.offsets) - 1) // self.sequences_per_example

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example's longest sequence, shape (example,)."""
        lengths: NDArray[np.int64] = np.diff(self.offsets).reshape(len(self), self.sequences_per_example).max(axis=1)
        return lengths

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """Tokens of all sequences of each example, shape (example,)."""
        return np.diff(self.offsets[:: self.sequences_per_example])

    def padded(self, length: int) -> int:
        """Return how long a batch is whose longest sequence has `length` tokens."""
        return min(-(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, int(self.lengths.max()))

    def cut_by_length(self, chosen: Indices, most: int, padded_tokens: int) -> Iterator[tuple[int, Indices]]:
        """Yield (start, indices) of each piece: its first example is its longest, so that says how many it may have.

        That is a power of two: with lengths in multiples of 8 a run meets some hundred shapes, not a new one a step.
        """
        by_length = chosen[np.argsort(-self.lengths[chosen], kind="stable")]
        start = 0
        while start < len(by_length):
            padded = self.padded(int(self.lengths[by_length[start]])) * self.sequences_per_example
            fitting = max(1, min(most, padded_tokens // padded, len(by_length) - start))
            rows = 2 ** (fitting.bit_length() - 1)
            yield start, by_length[start : start + rows]
            start += rows

    def select(self, indices: Indices) -> dict[str, NDArray[Any]]:
        """Return the examples of `indices` as a batch.

        input_ids (example, sequence, length), padded at the right; extract (example, sequence), the position of the
        extract token; labels as `targets`, where there are any.
        """
        shape = (len(indices), self.sequences_per_example)
        rows = indices[:, None] * self.sequences_per_example + np.arange(self.sequences_per_example)
        starts = self.offsets[rows]  # (example, sequence)
        lengths = self.offsets[rows + 1] - starts
        positions = np.arange(self.padded(int(lengths.max())))
        is_token = positions < lengths[..., None]  # (example, sequence, length)
        input_ids = np.full((*shape, len(positions)), PADDING_ID, np.int64)
        input_ids[is_token] = self.ids[(starts[..., None] + positions)[is_token]]
        batch: dict[str, NDArray[Any]] = {"input_ids": input_ids, "extract": lengths - 1}
        return batch if self.targets is None else batch | {"labels": self.targets[indices]}


def encode_examples(
    tokenizer: PreTrainedTokenizerBase,
    task_format: str,
    examples: Sequence[Example],
    markers: Markers,
    limit: int,
    *,
    target: Target,
) -> EncodedExamples:
    """Return the examples, one at least, in sequences of at most `limit` tokens; see above for what is cut.

    Texts are encoded as such: none can yield a marker, ValueError if the tokenizer has an entry of such an id.
    InputError names an example that has no label where others have one, or another number of choices than the first.
    """
    if taken := {*markers} & set(tokenizer.get_vocab().values()):
        raise ValueError(f"markers need ids of their own; the tokenizer has entries {sorted(taken)}")
    texts = _encode_texts(tokenizer, examples)
    ids, ends = array("i"), array("q", [0])
    truncated: Counter[str] = Counter()
    n_truncated = sequences_per_example = 0
    for example in examples:
        fields = [
            texts[field] if isinstance(field, str) else [texts[text] for text in field] for field in example.fields
        ]
        formatted = format_example(task_format, fields, markers, limit)
        sequences_per_example = sequences_per_example or len(formatted.sequences)
        if (found := len(formatted.sequences)) != sequences_per_example:
            message = f"{found} choices, where the first example has {sequences_per_example}"
            raise InputError(message, where=example.where, fix="give every example the same number of choices")
        for sequence in formatted.sequences:
            ids.fromlist(sequence)
            ends.append(len(ids))
        truncated.update(formatted.truncated)
        n_truncated += bool(formatted.truncated)
    flat, offsets = np.frombuffer(ids, np.int32), np.frombuffer(ends, np.int64)
    targets = _targets(examples, target)
    return EncodedExamples(flat, offsets, sequences_per_example, targets, dict(truncated), n_truncated)


@dataclass(frozen=True)
class _Texts:
    """Ids of texts: text number n is ids[offsets[n] : offsets[n + 1]]."""

    numbers: dict[str, int]
    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __getitem__(self, text: str) -> list[int]:
        number = self.numbers[text]
        ids: list[int] = self.ids[self.offsets[number] : self.offsets[number + 1]].tolist()
        return ids


def _encode_texts(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> _Texts:
    """Encode every text once: many share a context or a premise."""
    numbers: dict[str, int] = {}
    for example in examples:
        for field in example.fields:
            for text in (field,) if isinstance(field, str) else field:
                numbers.setdefault(text, len(numbers))
    ids, lengths = array("i"), np.zeros(len(numbers) + 1, np.int64)
    for number, part in encode_documents(tokenizer, (Piece(text, number, "") for text, number in numbers.items())):
        ids.frombytes(part.astype(np.int32).tobytes())
        lengths[number + 1] += len(part)
    return _Texts(numbers, np.array(ids, np.int32), np.cumsum(lengths))


def _targets(examples: Sequence[Example], target: Target) -> Targets | None:
    labels = [example.label for example in examples]
    if all(label is None for label in labels):
        return None
    if None in labels:
        where = examples[labels.index(None)].where
        raise InputError("no label, where other examples have one", where=where, fix="label all examples, or none")
    if target in ("class", "choice"):
        return np.array(labels, np.int64)
    scores = np.array(labels, np.float32)
    return soft_scores(scores) if target == "soft-score" else scores


def soft_scores(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return distributions (example, score) over 0, 1, ..., 5 whose means are `scores`, at most two entries not 0.

    Source: Tai et al. 2015 (Tree-LSTM), section 4.2; GPT-1 trained STS-B so. ValueError for scores beyond 0 to 5.
    """
    if not np.all((scores >= 0) & (scores <= HIGHEST_SCORE)):
        raise ValueError(f"a score is not within 0 to {HIGHEST_SCORE}")
    distance = np.abs(scores[:, None] - np.arange(HIGHEST_SCORE + 1, dtype=np.float32))  # (example, score)
    distributions: NDArray[np.float32] = np.maximum(0, 1 - distance)
    return distributions
