"""Attention of every head: scores before the softmax, and weights (Vaswani et al. 2017, section 3.2.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gptkit.inspect.trace import Trace


@dataclass(frozen=True, eq=False)
class Attention:
    """`scores` = query . key / sqrt(head_dim), -inf where a key comes after the query; `weights` = their softmax."""

    scores: NDArray[np.float32]  # (layer, head, query, key)
    weights: NDArray[np.float32]  # (layer, head, query, key)


def attention_of(trace: Trace) -> Attention:
    scores = causal_scores(trace.query, trace.key)
    return Attention(scores.cpu().numpy(), F.softmax(scores, dim=-1).cpu().numpy())


def causal_scores(query: Tensor, key: Tensor) -> Tensor:
    """Return the masked scores (..., query, key) of queries and keys (..., position, head_dim)."""
    length, head_dim = query.shape[-2:]
    scores: Tensor = (query * head_dim**-0.5) @ key.mT
    return scores + scores.new_full((length, length), -math.inf).triu(1)
