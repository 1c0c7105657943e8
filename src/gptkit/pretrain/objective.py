"""Pre-training's objective: predict each token of a block from those before it (GPT-1 paper, equation 1)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import islice

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from gptkit.text.blocks import TokenIds, TrainingBlocks, validation_windows
from gptkit.training.batches import Batch, Batches, MicroBatch, ShouldStop, cut, own_batches

VALIDATION_TOKENS = 4096  # of one forward pass


def pretraining_batches(
    blocks: TrainingBlocks, *, sequence_length: int, rows_per_step: int, micro_batch: int
) -> Batches:
    """Return the global batch of each step, a pure function of the step, cut into micro-batches."""

    def batches(step: int) -> list[MicroBatch]:
        first_row = (step - 1) * rows_per_step
        return [
            MicroBatch(row, rows * sequence_length, partial(_block_batch, blocks, row, rows))
            for row, rows in cut(first_row, rows_per_step, micro_batch)
        ]

    return batches


def _block_batch(blocks: TrainingBlocks, first_row: int, rows: int) -> Batch:
    return _inputs_and_targets(torch.from_numpy(blocks.rows(first_row, rows)))


def _inputs_and_targets(tokens: Tensor) -> Batch:
    """Split windows (row, length + 1) into what the model reads and what it predicts, each (row, length)."""
    return {"input_ids": tokens[:, :-1].contiguous(), "shift_labels": tokens[:, 1:].contiguous()}


def language_modeling_loss(model: nn.Module, batch: Batch, count: Tensor | int) -> Tensor:
    """Return the summed negative log-likelihood of a micro-batch over the step's `count` of predictions."""
    loss: Tensor = model(**batch, num_items_in_batch=count, loss_only=True).loss
    return loss


def validate(
    model: nn.Module,
    tokens: TokenIds,
    *,
    sequence_length: int,
    utf8_bytes: int,
    should_stop: ShouldStop = lambda: False,
) -> dict[str, float]:
    """Score every token but the first once, in disjoint windows; StopEvaluation where `should_stop()` comes true.

    val_loss in nats per token, val_perplexity its exponential, bits_per_byte = total NLL / ln 2 / UTF-8 bytes of the
    text. Processes take whole batches of windows, so their number changes nothing but the order of the last sum; all
    ask `should_stop` once for each turn, so that they can agree.
    """
    device = next(model.parameters()).device
    nll = torch.zeros((), dtype=torch.float64, device=device)
    for batch in own_batches(_validation_batches(tokens, sequence_length), should_stop):
        moved = {name: tensor.to(device) for name, tensor in batch.items()}
        nll += language_modeling_loss(model, moved, 1).double()
    if dist.is_initialized():
        dist.all_reduce(nll)
    loss = nll.item() / (len(tokens) - 1)
    return {
        "val_loss": loss,
        "val_perplexity": math.exp(loss) if loss < 700 else math.inf,  # where a float overflows
        "bits_per_byte": nll.item() / math.log(2) / utf8_bytes,
    }


def _validation_batches(tokens: TokenIds, sequence_length: int) -> Iterator[Batch]:
    """Yield windows in batches of one length; the last window may be shorter and then comes alone."""
    whole = (len(tokens) - 1) // sequence_length
    windows = validation_windows(tokens, sequence_length)
    rows = max(1, VALIDATION_TOKENS // sequence_length)
    for first in range(0, whole, rows):
        yield _inputs_and_targets(torch.from_numpy(np.stack(list(islice(windows, min(rows, whole - first))))))
    for last in windows:
        yield _inputs_and_targets(torch.from_numpy(last)[None])
