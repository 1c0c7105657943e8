"""The path of a token: its residual stream from the embeddings on, after each attention and each MLP."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from gptkit.inspect.trace import Trace


@dataclass(frozen=True, eq=False)
class Path:
    """The stream at each place: the embeddings, then after each layer's attention and MLP.

    In GPT-2 every place is the sum of all that was written so far; in GPT-1 the layer norm of such a sum.
    """

    residual: NDArray[np.float32]  # (place, position, n_embd)
    norms: NDArray[np.float32]  # (place, position): Euclidean
    turn: NDArray[np.float32]  # (place, position): cosine with the place before, 1 at the first
    to_end: NDArray[np.float32]  # (place, position): cosine with the last place

    @property
    def sites(self) -> tuple[str, ...]:
        """The name of each place."""
        layers = range(len(self.residual) // 2)
        return ("embeddings", *(f"{layer} {part}" for layer in layers for part in ("attention", "MLP")))


def path_of(trace: Trace) -> Path:
    residual = trace.residual
    before = residual[[0, *range(len(residual) - 1)]]
    found = (
        residual,
        residual.norm(dim=-1),
        F.cosine_similarity(residual, before, dim=-1),
        F.cosine_similarity(residual, residual[-1:], dim=-1),
    )
    return Path(*(tensor.cpu().numpy() for tensor in found))
