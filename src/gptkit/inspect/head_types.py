"""Types of attention heads, found by what the heads attend to in random tokens that are repeated.

Random tokens have no meaning to attend by, so that only the pattern is left: the token before, the first token, or the
token after the last occurrence of the present one (induction heads: Olsson et al. 2022, "In-context Learning and
Induction Heads").
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gptkit.inspect.attention import causal_scores
from gptkit.inspect.trace import Point, blocks_of, recording, split_heads
from gptkit.model.modeling_gpt import GPTForCausalLM

HEAD_TYPES = ("previous-token", "first-token", "induction")
NAMED_FROM = 0.4  # mean weight from which a head is called by its type
SEQUENCES, TOKENS = 4, 64  # of random tokens; fewer where a model has fewer positions or entries


class NamedHead(NamedTuple):
    layer: int
    head: int
    type: str
    score: float


@dataclass(frozen=True, eq=False)
class HeadTypes:
    scores: NDArray[np.float32]  # (layer, head, type): mean attention to the token that the type is named after

    def names(self) -> tuple[NamedHead, ...]:
        """Return the heads that have a type, in order of layer and head; of several types the strongest counts."""
        best, scores = self.scores.argmax(-1), self.scores.max(-1)
        return tuple(
            NamedHead(int(layer), int(head), HEAD_TYPES[best[layer, head]], float(scores[layer, head]))
            for layer, head in np.argwhere(scores >= NAMED_FROM)
        )

    def clearest(self) -> tuple[int, int]:
        """Return the layer and head with the highest score of any type."""
        layer, head = np.unravel_index(self.scores.max(-1).argmax(), self.scores.shape[:2])
        return int(layer), int(head)


@torch.no_grad()
def head_types_of(model: GPTForCausalLM, excluded: Collection[int] = ()) -> HeadTypes:
    """Measure each head on sequences of distinct random tokens, each written twice; `excluded` ids never occur."""
    ids = repeated_tokens(model.config.vocab_size, model.config.n_positions, excluded)
    with recording([Point("qkv", block.attn.c_attn) for block in blocks_of(model)]) as recorded:
        model.transformer(input_ids=torch.from_numpy(ids).to(model.device), use_cache=False)
    scores = [_type_scores(qkv, model.config.n_head) for qkv in recorded["qkv"]]
    return HeadTypes(torch.stack(scores).cpu().numpy())


def repeated_tokens(vocab_size: int, n_positions: int, excluded: Collection[int]) -> NDArray[np.int64]:
    """Return ids (sequence, 2 * tokens) whose second half repeats the first, in which no id occurs twice."""
    known = np.setdiff1d(np.arange(vocab_size), [*excluded])
    length = max(1, min(TOKENS, n_positions // 2, len(known)))
    draw = np.random.default_rng(0)
    half = np.stack([draw.choice(known, length, replace=False) for _ in range(SEQUENCES)])
    return np.concatenate([half, half], axis=1)


def _type_scores(qkv: Tensor, heads: int) -> Tensor:
    """Return the mean weights (head, type) of one layer."""
    query, key, _ = split_heads(qkv, heads)
    weights = F.softmax(causal_scores(query, key), dim=-1)  # (sequence, head, query, key)
    half = weights.shape[-1] // 2
    previous = weights.diagonal(-1, -2, -1)  # (sequence, head, query from 1 on)
    first = weights[..., 1:, 0]
    # From the second occurrence at i, the token after the first one is i - half + 1.
    induction = weights.diagonal(1 - half, -2, -1)[..., 1:]
    return torch.stack([type.mean((0, 2)) for type in (previous, first, induction)], dim=-1)
