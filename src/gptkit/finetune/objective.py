"""Fine-tuning's objective, L3 = L2 + lm_coef * L1 (GPT-1 paper, section 3.2)."""

from __future__ import annotations

from torch import Tensor, nn

from gptkit.training.batches import Batch
from gptkit.training.job import LossFunction


def double_heads_loss(lm_coef: float) -> LossFunction:
    """Return the loss of a step: over its micro-batches, the sum of their examples' losses over the step's `count`."""

    def loss_function(model: nn.Module, batch: Batch, count: Tensor) -> Tensor:
        loss: Tensor = model(**batch, lm_coef=lm_coef, num_items_in_batch=count, loss_only=True).loss
        return loss

    return loss_function
