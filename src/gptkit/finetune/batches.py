"""Which examples a step trains on, and how they are cut and padded: by length, so that little of a batch is padding."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import torch

from gptkit.model.modeling_double_heads import predicting_positions
from gptkit.tasks.encoding import EncodedExamples, Indices
from gptkit.text.blocks import block_order
from gptkit.training.batches import Batch, Batches, MicroBatch


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
        return _micro_batches(examples, chosen, micro_batch, padded_tokens, first_row=(step - 1) * batch_size)

    return batches


def largest_micro_batches(
    examples: EncodedExamples, *, batch_size: int, micro_batch: int, padded_tokens: int
) -> list[MicroBatch]:
    """Return the micro-batches that the longest examples would be cut into: no other batch has more tokens."""
    longest = np.argsort(-examples.lengths, kind="stable")[:batch_size]
    return _micro_batches(examples, longest, micro_batch, padded_tokens)


def _micro_batches(
    examples: EncodedExamples, chosen: Indices, most: int, padded_tokens: int, first_row: int = 0
) -> list[MicroBatch]:
    return [
        MicroBatch(
            first_row + start,
            len(indices),
            partial(_training_batch, examples, indices),
            int(examples.tokens[indices].sum()),
        )
        for start, indices in examples.cut_by_length(chosen, most, padded_tokens)
    ]


def _training_batch(examples: EncodedExamples, indices: Indices) -> Batch:
    batch = {name: torch.from_numpy(array) for name, array in examples.select(indices).items()}
    return batch | {"lm_positions": predicting_positions(batch["extract"], batch["input_ids"].shape[-1])}
