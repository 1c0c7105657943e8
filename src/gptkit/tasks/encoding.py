"""The examples of a split as token ids: flat arrays, from which any choice of examples becomes a padded batch.

texts -> ids of each text, once -> sequences of each example -> (example, sequence, length)
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import InputError
from gptkit.tasks.formats import Markers, format_example
from gptkit.tasks.task import Target
from gptkit.text.examples import Example
from gptkit.text.pieces import Piece
from gptkit.text.tokenizers.encoding import encode_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Targets = NDArray[np.int64] | NDArray[np.float32]
Indices = NDArray[np.int64]

HIGHEST_SCORE = 5  # of STS-B, whose soft scores are distributions over 0 to 5
PADDING_ID = 0
LENGTH_MULTIPLE = 8  # of padded lengths: a library or a compiler makes a kernel for every shape that it has not seen


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
    """Return the examples, one at least, in sequences of at most `limit` tokens; see `formats` for what is cut.

    Texts are encoded as such: none can yield a marker, ValueError if the tokenizer has an entry of such an id.
    InputError names an example that has no label where others have one, or another number of choices than the first.
    """
    if taken := {*markers} & set(tokenizer.get_vocab().values()):
        raise ValueError(f"markers need ids of their own; the tokenizer has entries {sorted(taken)}")
    ids_of = _encode_texts(tokenizer, examples)
    ids, ends = array("i"), array("q", [0])
    truncated: Counter[str] = Counter()
    n_truncated = sequences_per_example = 0
    for example in examples:
        fields = [ids_of(field) if isinstance(field, str) else [*map(ids_of, field)] for field in example.fields]
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


def _encode_texts(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> Callable[[str], list[int]]:
    """Encode every text once, for many share a context or a premise; return what gives a text's ids."""
    numbers: dict[str, int] = {}
    for example in examples:
        for field in example.fields:
            for text in (field,) if isinstance(field, str) else field:
                numbers.setdefault(text, len(numbers))
    ids, lengths = array("i"), np.zeros(len(numbers) + 1, np.int64)
    for number, part in encode_documents(tokenizer, (Piece(text, number, "") for text, number in numbers.items())):
        ids.frombytes(part.astype(np.int32).tobytes())
        lengths[number + 1] += len(part)
    flat, offsets = np.array(ids, np.int32), np.cumsum(lengths)

    def ids_of(text: str) -> list[int]:
        found: list[int] = flat[offsets[numbers[text]] : offsets[numbers[text] + 1]].tolist()
        return found

    return ids_of


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
