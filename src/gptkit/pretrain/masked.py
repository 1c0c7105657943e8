"""Pre-training of a masked language model: batches whose loss is that of masked tokens, and their validation.

A row of `length` tokens is its own target, where a causal model's row predicts the token after each. A step's count is
that of its masked tokens; the tokens per second, and a run's tokens, count all that are read, as for a causal model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gptkit.pretrain.validation import total_nll
from gptkit.text.blocks import TokenIds, TrainingBlocks
from gptkit.text.masking import VALIDATION_SEED, is_chosen, mask_row
from gptkit.training.batches import Batch, Batches, MicroBatch, ShouldStop, cut


def masked_batches(
    blocks: TrainingBlocks, *, sequence_length: int, rows_per_step: int, micro_batch: int, mask_token: int, seed: int
) -> Batches:
    """Return the function from a step to its global batch, cut into micro-batches; each epoch has masks of its own."""

    def load(first_row: int, rows: int) -> Batch:
        return _masked(blocks.rows(first_row, rows)[:, :-1], mask_token, seed, first_row)

    def batches(step: int) -> list[MicroBatch]:
        pieces = cut((step - 1) * rows_per_step, rows_per_step, micro_batch)
        counts = [
            sum(int(is_chosen(seed, row, sequence_length).sum()) for row in range(first, first + rows))
            for first, rows in pieces
        ]
        counts[0] += not any(counts)  # a step without masked tokens has a loss of 0, over 1
        return [
            MicroBatch(first, count, partial(load, first, rows), tokens=rows * sequence_length)
            for (first, rows), count in zip(pieces, counts, strict=True)
        ]

    return batches


def _masked(rows: Sequence[NDArray[np.int64]] | NDArray[np.int64], mask_token: int, seed: int, first_row: int) -> Batch:
    """Return rows of one length as a batch, (row, length) each."""
    pairs = [mask_row(tokens, mask_token, seed=seed, row=first_row + number) for number, tokens in enumerate(rows)]
    read, labels = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*pairs, strict=True))
    return {"input_ids": read, "shift_labels": labels}


def validate_masked(
    model: nn.Module, tokens: TokenIds, *, sequence_length: int, mask_token: int, rows: int, should_stop: ShouldStop
) -> dict[str, float]:
    """Return masked_loss, the mean loss in nats of a text's masked tokens, in passes of `rows` disjoint windows.

    The masks depend on the windows' length, not on the run's seed.
    """
    batches = _validation_batches(tokens, sequence_length, mask_token, rows)
    nll, count = total_nll(model, batches, should_stop)
    return {"masked_loss": nll / count}


def _validation_batches(tokens: TokenIds, length: int, mask_token: int, rows: int) -> Iterator[Batch]:
    """Yield batches of windows of one length; a shorter last window is a batch of its own."""
    whole = len(tokens) // length
    for first in range(0, whole, rows):
        windows = tokens[first * length : min(first + rows, whole) * length].astype(np.int64).reshape(-1, length)
        yield _masked(windows, mask_token, VALIDATION_SEED, first)
    if len(tokens) % length:
        yield _masked(tokens[None, whole * length :].astype(np.int64), mask_token, VALIDATION_SEED, whole)
