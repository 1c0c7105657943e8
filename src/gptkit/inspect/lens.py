"""The logit lens: what the model would predict if it ended after each layer (nostalgebraist 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gptkit.inspect.loss import LIKELIEST, better_than
from gptkit.inspect.trace import Trace
from gptkit.model.modeling_gpt import GPTForCausalLM


@dataclass(frozen=True, eq=False)
class Lens:
    """The predictions after the embeddings and after each layer, of which the last is the model's own."""

    top_ids: NDArray[np.int64]  # (layer + 1, position, likeliest)
    top_probabilities: NDArray[np.float32]  # (layer + 1, position, likeliest)
    rank: NDArray[np.int64]  # (layer + 1, position): of the target, from 1
    kl: NDArray[np.float32]  # (layer + 1, position): of this prediction from the model's own, D(own || this), in nats


@torch.no_grad()
def lens_of(model: GPTForCausalLM, trace: Trace, logits: Tensor, targets: Tensor) -> Lens:
    """Read each layer's residual stream with the model's own head; GPT-2's final layer norm belongs to the head.

    GPT-1 has no final layer norm: what leaves a layer is normalized already, and read as it is. logits
    (position, vocab) are the model's; targets (position,).
    """
    own = F.log_softmax(logits, dim=-1)
    rows = []
    for stream in trace.residual[::2]:  # (position, n_embd)
        seen = F.log_softmax(model.lm_head(model.transformer.ln_f(stream)).float(), dim=-1)
        top = seen.topk(min(LIKELIEST, seen.shape[-1]), dim=-1)
        kl = (own.exp() * (own - seen)).sum(-1).clamp(min=0)
        rows.append((top.indices, top.values.exp(), better_than(targets, seen).sum(-1) + 1, kl))
    return Lens(*(torch.stack(column).cpu().numpy() for column in zip(*rows, strict=True)))
