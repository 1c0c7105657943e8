"""Fine-tuning's objective, L3 = L2 + lm_coef * L1, and the logits of a whole split (GPT-1 paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from gptkit.training.batches import Batch, ShouldStop, StopEvaluation
from gptkit.training.job import LossFunction

EvaluationBatch = tuple[npt.NDArray[np.integer[Any]], Callable[[], Batch]]  # which examples, and their tensors


def double_heads_loss(lm_coef: float) -> LossFunction:
    """Return the loss of a step: over its micro-batches, the sum of their examples' losses over the step's `count`."""

    def loss_function(model: nn.Module, batch: Batch, count: Tensor) -> Tensor:
        loss: Tensor = model(**batch, lm_coef=lm_coef, num_items_in_batch=count, loss_only=True).loss
        return loss

    return loss_function


@dataclass(frozen=True)
class SplitLogits:
    """Logits (n, outputs) of a split's examples, in their order, and the mean classifier loss if they are labelled."""

    logits: npt.NDArray[np.float32]
    loss: float | None


@torch.no_grad()
def predict(
    model: nn.Module,
    batches: Sequence[EvaluationBatch],
    n: int,
    *,
    should_stop: ShouldStop = lambda: False,
) -> SplitLogits:
    """Return what the model says to each of `n` examples, each once; StopEvaluation where `should_stop()` comes true.

    A score is one output, a choice one for each. Processes take whole batches, so their number changes nothing but the
    order of the loss's last sum; all ask `should_stop` once for each turn, so that they can agree. The model should be
    in eval mode.
    """
    device = next(model.parameters()).device
    process, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    table: Tensor | None = None  # (n, outputs), zero where another process will answer
    loss = torch.zeros((), dtype=torch.float64, device=device)
    is_labelled = False
    for index, (indices, load) in enumerate(batches):
        if index % processes == 0 and should_stop():
            raise StopEvaluation
        is_own = index % processes == process
        # A process without a batch of its own runs the first one, to learn how wide the table is.
        if not is_own and (index or process < len(batches)):
            continue
        batch = {name: tensor.to(device) for name, tensor in load().items()}
        output = model(**batch, num_items_in_batch=1)
        logits = output.logits.view(len(indices), -1)
        table = logits.new_zeros(n, logits.shape[1]) if table is None else table
        is_labelled = output.loss is not None
        if is_own:
            table[torch.as_tensor(indices, device=device)] = logits
            loss += output.loss.double() if is_labelled else 0.0
    if table is None:
        raise ValueError("there are no examples to predict")
    if processes > 1:
        dist.all_reduce(table)
        dist.all_reduce(loss)
    return SplitLogits(table.cpu().numpy(), loss.item() / n if is_labelled else None)
