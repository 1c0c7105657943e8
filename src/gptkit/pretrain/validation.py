"""The loss of a whole validation text, of whichever tokens a model predicts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gptkit.training.batches import Batch, ShouldStop, own_batches


def language_modeling_loss(model: nn.Module, batch: Batch, count: Tensor | int) -> Tensor:
    """Return a micro-batch's summed negative log-likelihood divided by the step's `count` of predicted tokens."""
    loss: Tensor = model(**batch, num_items_in_batch=count, loss_only=True).loss
    return loss


def total_nll(model: nn.Module, batches: Iterable[Batch], should_stop: ShouldStop) -> tuple[float, float]:
    """Return the summed negative log-likelihood, in nats, of what a text's batches predict, and how many tokens it is.

    Each process takes whole batches, so the number of processes affects only the order of the final sum; each calls
    `should_stop` once per turn, so that they can agree. Raises StopEvaluation once it returns true.
    """
    device = next(model.parameters()).device
    total = torch.zeros(2, dtype=torch.float64, device=device)
    for batch in own_batches(batches, should_stop):
        moved = {name: tensor.to(device) for name, tensor in batch.items()}
        total[0] += language_modeling_loss(model, moved, 1).double()
        total[1] += (moved["shift_labels"] >= 0).sum()
    if dist.is_initialized():
        dist.all_reduce(total)
    nll, count = total.tolist()
    return nll, count
