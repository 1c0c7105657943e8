"""One head by hand: its queries, keys, values and output, from which every step can be recomputed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gptkit.inspect.trace import Trace, blocks_of
from gptkit.model.modeling_gpt import GPTForCausalLM


@dataclass(frozen=True, eq=False)
class Hand:
    """weights = softmax(mask(query @ key.T / sqrt(head_dim))), output = weights @ value; biases are included."""

    layer: int
    head: int
    query: NDArray[np.float32]  # (position, head_dim)
    key: NDArray[np.float32]  # (position, head_dim)
    value: NDArray[np.float32]  # (position, head_dim)
    output: NDArray[np.float32]  # (position, head_dim): before the projection
    written: NDArray[np.float32]  # (position, n_embd): what the head adds to the stream, without the projection's bias


@torch.no_grad()
def hand_of(model: GPTForCausalLM, trace: Trace, layer: int, head: int) -> Hand:
    query, key, value, output = (
        part[layer, head] for part in (trace.query, trace.key, trace.value, trace.attended)
    )  # (position, head_dim)
    own = slice(head * output.shape[-1], (head + 1) * output.shape[-1])
    written = output @ blocks_of(model)[layer].attn.c_proj.weight[:, own].T
    return Hand(layer, head, *(tensor.cpu().numpy() for tensor in (query, key, value, output, written)))
