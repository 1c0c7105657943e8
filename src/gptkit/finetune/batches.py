"""Which examples a step trains on, and how they are cut and padded: by length, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray

from gptkit.model.modeling_double_heads import predicting_positions
from gptkit.tasks.encoding import EncodedExamples
from gptkit.text.blocks import block_order
from gptkit.training.batches import Batch, Batches, MicroBatch

Indices = NDArray[np.int64]


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Return how many batches an epoch of n examples has: the rest is dropped (as GPT-1 did), unless it is all."""
    return max(1, n // batch_size)


def finetuning_batches(
    examples: EncodedExamples, *, batch_size: int, seed: int, micro_batch: int, padded_tokens: int
) -> Batches:
    """Return the global batch of each step, a pure function of (seed, step), longest first, cut into micro-batches.

    Each has at most `micro_batch` examples and, unless one alone has more, `padded_tokens` tokens with the padding.
    """
    steps = steps_per_epoch(len(examples), batch_size)
    order = lru_cache(maxsize=2)(lambda epoch: block_order(seed, epoch, len(examples)))

    def batches(step: int) -> list[MicroBatch]:
        epoch, turn = divmod(step - 1, steps)
        chosen = order(epoch)[turn * batch_size : (turn + 1) * batch_size]
        first_row = (step - 1) * batch_size
        return [
            MicroBatch(
                first_row + start,
                len(indices),
                partial(_training_batch, examples, indices),
                int(examples.tokens[indices].sum()),
            )
            for start, indices in _cut_by_length(examples, chosen, micro_batch, padded_tokens)
        ]

    return batches


def fullest_passes(
    examples: EncodedExamples, *, batch_size: int, micro_batch: int, padded_tokens: int
) -> list[MicroBatch]:
    """Return the passes that a batch of the longest examples would be cut into: no other has more tokens."""
    longest = np.argsort(-examples.lengths, kind="stable")[:batch_size]
    return [
        MicroBatch(start, len(indices), partial(_training_batch, examples, indices))
        for start, indices in _cut_by_length(examples, longest, micro_batch, padded_tokens)
    ]


def evaluation_batches(examples: EncodedExamples, *, padded_tokens: int) -> list[tuple[Indices, Callable[[], Batch]]]:
    """Return each example once, longest first: (indices, what loads them) of at most `padded_tokens`, or one alone."""
    everything = np.arange(len(examples))
    return [
        (indices, partial(_batch, examples, indices))
        for _, indices in _cut_by_length(examples, everything, len(examples), padded_tokens)
    ]


def _cut_by_length(
    examples: EncodedExamples, chosen: Indices, most: int, padded_tokens: int
) -> Iterator[tuple[int, Indices]]:
    """Yield (start, indices) of each piece: its first example is its longest, so that says how many it may have.

    That number is a power of two: with lengths in multiples of 8 a run meets some hundred shapes, not a new one a step.
    """
    by_length = chosen[np.argsort(-examples.lengths[chosen], kind="stable")]
    start = 0
    while start < len(by_length):
        padded = examples.padded(int(examples.lengths[by_length[start]])) * examples.sequences_per_example
        fitting = max(1, min(most, padded_tokens // padded, len(by_length) - start))
        rows = 2 ** (fitting.bit_length() - 1)
        yield start, by_length[start : start + rows]
        start += rows


def _training_batch(examples: EncodedExamples, indices: Indices) -> Batch:
    batch = _batch(examples, indices)
    return batch | {"lm_positions": predicting_positions(batch["extract"], batch["input_ids"].shape[-1])}


def _batch(examples: EncodedExamples, indices: Indices) -> Batch:
    return {name: torch.from_numpy(array) for name, array in examples.select(indices).items()}
