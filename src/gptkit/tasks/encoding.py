"""Encode labelled examples for fine-tuning: token sequences in GPT-1's input formats, cut and batched.

texts -> ids of each text, once -> sequences of each example -> batches (example, sequence, length)

The formats (GPT-1 paper, section 3.3 and figure 1):

    classification    start text extract
    entailment        start premise delimiter hypothesis extract
    similarity        start first delimiter second extract, and the same with second before first
    multiple-choice   start context question delimiter choice extract, for each choice

An example that is too long is cut by one rule: every field keeps its first c tokens, for the largest c that fits. So
the longest fields are cut first, no marker is lost, and both orders of a pair and all choices keep the same tokens.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptkit.tasks.task import FORMAT_FIELDS, Target, Task
from gptkit.text.examples import Example
from gptkit.text.pieces import Piece
from gptkit.text.tokenizers.encoding import count_unknown, encode_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Targets = NDArray[np.int64] | NDArray[np.float32]
Indices = NDArray[np.int64]
Ids = list[int]

HIGHEST_SCORE = 5  # soft scores, as of STS-B, are distributions over 0 to 5
PADDING_ID = 0
LENGTH_MULTIPLE = 8  # of padded lengths: libraries and compilers build a kernel for each new shape


class Markers(NamedTuple):
    """Ids of the tokens that fine-tuning adds; no text encodes to them."""

    start: int
    delimiter: int
    extract: int


@dataclass(frozen=True)
class Formatted:
    """The sequences of one example, and the names of the fields that were truncated."""

    sequences: tuple[Ids, ...]
    truncated: tuple[str, ...]


def format_example(task_format: str, fields: Sequence[Any], markers: Markers, limit: int) -> Formatted:
    """Return an example's sequences of at most `limit` tokens, given the ids of each of FORMAT_FIELDS.

    Choices are a list of ids each. ValueError if `limit` leaves no room for one token of each field.
    """
    named = dict(zip(FORMAT_FIELDS[task_format], fields, strict=True))
    lengths = {name: max(map(len, ids)) if name == "choices" else len(ids) for name, ids in named.items()}
    start, delimiter, extract = markers
    room = limit - (2 if task_format == "classification" else 3)
    if room < len(lengths):
        raise ValueError(f"no room for {' and '.join(lengths)}: {max(0, room)} tokens besides the markers")
    kept = _tokens_per_field(sorted(lengths.values()), room)
    truncated = tuple(name for name, length in lengths.items() if length > kept)
    cut = [[choice[:kept] for choice in ids] if name == "choices" else ids[:kept] for name, ids in named.items()]
    pairs: list[tuple[Ids, Ids]]
    match task_format:
        case "classification":
            return Formatted(([start, *cut[0], extract],), truncated)
        case "entailment":
            pairs = [(cut[0], cut[1])]
        case "similarity":
            pairs = [(cut[0], cut[1]), (cut[1], cut[0])]
        case "multiple-choice":
            pairs = [(cut[0] + cut[1], choice) for choice in cut[2]]
    return Formatted(tuple([start, *first, delimiter, *second, extract] for first, second in pairs), truncated)


def _tokens_per_field(lengths: Sequence[int], room: int) -> int:
    """Return the largest c with sum(min(length, c)) <= room, the longest length if all fit; lengths are sorted."""
    for i, length in enumerate(lengths):
        equal = room // (len(lengths) - i)
        if length > equal:
            return equal
        room -= length
    return lengths[-1]


@dataclass(frozen=True, eq=False)
class EncodedExamples:
    """All sequences of a split, concatenated: sequence s is ids[offsets[s] : offsets[s + 1]].

    `targets` are classes or choices (example,), scores (example,), soft scores (example, score), or None without
    labels. `truncated` counts the examples with a truncated field, by field; `cut` are the indices of those with any.
    `n_unknown` counts the ids that stand for text that the tokenizer does not know. `states` are a frozen model's at
    the end of each sequence, (sequence, n_embd) for each of its layers that is read.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sequences_per_example: int
    targets: Targets | None
    truncated: dict[str, int]
    cut: Sequence[int] = ()
    n_unknown: int = 0
    states: Sequence[NDArray[np.float32]] = ()

    def __len__(self) -> int:
        return (len(self.offsets) - 1) // self.sequences_per_example

    @property
    def n_truncated(self) -> int:
        """The number of examples with a truncated field."""
        return len(self.cut)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens in each example's longest sequence, shape (example,)."""
        lengths: NDArray[np.int64] = np.diff(self.offsets).reshape(len(self), self.sequences_per_example).max(axis=1)
        return lengths

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """Tokens in all sequences of each example, shape (example,)."""
        return np.diff(self.offsets[:: self.sequences_per_example])

    def padded(self, length: int) -> int:
        """Return the padded length of a batch whose longest sequence has `length` tokens."""
        return min(-(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, int(self.lengths.max()))

    def cut_by_length(self, chosen: Indices, most: int, padded_tokens: int) -> Iterator[tuple[int, Indices]]:
        """Yield (start, indices) of pieces of the chosen examples, longest first, of at most `most` examples each.

        A piece has at most `padded_tokens` tokens (or one example), and a power of two of examples: with padded lengths
        that are multiples of 8, a run sees about a hundred shapes, not a new one at each step.
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
        """Return the examples at `indices` as a batch.

        input_ids (example, sequence, length), padded on the right; extract (example, sequence), the position of the
        extract token; labels like `targets`, if there are any; states (example, sequence, layer, n_embd), if there are.
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
        if self.states:
            batch["states"] = np.stack([layer[rows] for layer in self.states], axis=2)
        return batch if self.targets is None else batch | {"labels": self.targets[indices]}


def encode_examples(
    tokenizer: PreTrainedTokenizerBase, task: Task, examples: Sequence[Example], markers: Markers, limit: int
) -> EncodedExamples:
    """Encode one or more examples of a task, each in sequences of at most `limit` tokens.

    All examples or none have a label, and all have the same number of choices (load_examples checks that). No text
    encodes to a marker; ValueError if the tokenizer has an entry with a marker's id.
    """
    if taken := {*markers} & set(tokenizer.get_vocab().values()):
        raise ValueError(f"markers need ids of their own; the tokenizer has entries {sorted(taken)}")
    ids_of = _encode_texts(tokenizer, examples)
    ids, ends = array("i"), array("q", [0])
    truncated: Counter[str] = Counter()
    cut: list[int] = []
    sequences_per_example = 0
    for number, example in enumerate(examples):
        fields = [ids_of(field) if isinstance(field, str) else [*map(ids_of, field)] for field in example.fields]
        formatted = format_example(task.format, fields, markers, limit)
        sequences_per_example = len(formatted.sequences)
        for sequence in formatted.sequences:
            ids.fromlist(sequence)
            ends.append(len(ids))
        truncated.update(formatted.truncated)
        cut += [number] * bool(formatted.truncated)
    flat, offsets = np.frombuffer(ids, np.int32), np.frombuffer(ends, np.int64)
    targets = _targets(examples, task.target)
    n_unknown = count_unknown(tokenizer, flat)
    return EncodedExamples(flat, offsets, sequences_per_example, targets, dict(truncated), cut, n_unknown)


def _encode_texts(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> Callable[[str], list[int]]:
    """Encode every distinct text once, since many examples share one; return the function from a text to its ids."""
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
    if None in labels:
        return None
    if target in ("class", "choice"):
        return np.array(labels, np.int64)
    scores = np.array(labels, np.float32)
    return soft_scores(scores) if target == "soft-score" else scores


def soft_scores(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return distributions (example, score) over 0, 1, ..., 5 with the means `scores` and at most two nonzero entries.

    Source: Tai et al. 2015 (Tree-LSTM), section 4.2. ValueError for scores outside 0 to 5.
    """
    if not np.all((scores >= 0) & (scores <= HIGHEST_SCORE)):
        raise ValueError(f"a score is not within 0 to {HIGHEST_SCORE}")
    distance = np.abs(scores[:, None] - np.arange(HIGHEST_SCORE + 1, dtype=np.float32))  # (example, score)
    distributions: NDArray[np.float32] = np.maximum(0, 1 - distance)
    return distributions
