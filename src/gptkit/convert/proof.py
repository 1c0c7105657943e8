"""Whether two models compute the same: their logits on the same random ids, in fp32."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

SEQUENCES, LENGTH = 4, 64


@torch.inference_mode()
def logits_on_random_ids(model: PreTrainedModel) -> Tensor:
    """Return logits (sequences, length, vocab) for ids that the model's sizes determine; the model becomes fp32."""
    length = min(LENGTH, model.config.n_positions)
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(model.config.vocab_size, (SEQUENCES, length), generator=generator)
    logits: Tensor = model.float().eval()(input_ids=input_ids).logits
    return logits


def same_logits(expected: Tensor, found: Tensor) -> bool:
    """Say whether logits agree up to the rounding of fp32 in two implementations."""
    tolerance = 1e-4 * max(1.0, float(expected.abs().max()))
    return float((expected - found).abs().max()) <= tolerance
