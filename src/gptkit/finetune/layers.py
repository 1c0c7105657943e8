"""Which layer a parameter of a GPT belongs to, at what rate it learns, and when it joins in, as ULMFiT has it.

Depth 0 holds the embeddings, depth i + 1 block i, and the top, n_layer + 1, the last layer norm and the head (Howard
and Ruder 2018, sections 3.2 and 3.3).
"""

from __future__ import annotations

import re
from typing import Literal

from gptkit.training.optimizers import Layer, LayerOf

EMBEDDINGS = {"wte", "wpe"}


def layers(n_layer: int, *, decay: float, unfreeze: Literal["all", "gradual"], steps_per_epoch: int) -> LayerOf:
    """Return the layer of each parameter of a GPT with any head, by its name.

    The rate is the peak times decay^(layers below the top). With gradual unfreezing the top alone learns in the first
    epoch, and each later epoch adds the next layer below; tied heads wait with the embeddings.
    """
    top = n_layer + 1

    def layer_of(name: str) -> Layer:
        depth = _depth(name, top)
        below = top - depth
        first_step = 1 + below * steps_per_epoch if unfreeze == "gradual" else 1
        return Layer(_title(depth, top), decay**below, first_step)

    return layer_of


def _depth(name: str, top: int) -> int:
    if block := re.search(r"\bh\.(\d+)\.", name):
        return int(block[1]) + 1
    return 0 if EMBEDDINGS & set(name.split(".")) else top


def _title(depth: int, top: int) -> str:
    if depth == 0:
        return "embeddings"
    return "head" if depth == top else f"block {depth - 1}"
