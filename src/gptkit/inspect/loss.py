"""What the model expected at each place, and what top-k and top-p would have cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

LIKELIEST = 5  # tokens shown of a prediction
KS = (1, 5, 10, 20, 40, 50, 100, 200)  # of top-k
PS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)  # of top-p


@dataclass(frozen=True, eq=False)
class Loss:
    """The prediction after each position. A target is the next token; after the last position, the likeliest token.

    top-k keeps the target if `rank` <= k, top-p if `mass_above` < p (the rule "hf" of gptkit generate).
    """

    targets: NDArray[np.int64]  # (position,)
    nll: NDArray[np.float64]  # (position,): surprisal of the target, in nats
    rank: NDArray[np.int64]  # (position,): of the target, from 1; of equal tokens the lower id is first
    top_ids: NDArray[np.int64]  # (position, likeliest)
    top_probabilities: NDArray[np.float32]  # (position, likeliest)
    mass_above: NDArray[np.float32]  # (position,): probability of all tokens ranked before the target
    entropy: NDArray[np.float32]  # (position,): in nats
    ks: NDArray[np.int64]  # (k,)
    top_k_mass: NDArray[np.float32]  # (k, position): probability that top-k keeps
    ps: NDArray[np.float32]  # (p,)
    top_p_kept: NDArray[np.int64]  # (p, position): how many tokens top-p keeps

    @property
    def total(self) -> float:
        """The surprisal of the whole text, in nats: what `gptkit eval` sums."""
        return float(self.nll[:-1].sum())


@torch.no_grad()
def loss_of(logits: Tensor, ids: Tensor) -> Loss:
    """Compare the logits (position, vocab) with the ids (position,) that the model read."""
    targets = torch.cat([ids[1:], logits[-1:].argmax(-1)])
    log_probs = F.log_softmax(logits, dim=-1)
    probabilities = log_probs.exp()
    ordered = probabilities.sort(dim=-1, descending=True)
    reached = ordered.values.cumsum(-1)
    above = better_than(targets, logits)
    ks = [min(k, logits.shape[-1]) for k in KS]
    kept = [(reached - ordered.values < p).sum(-1) for p in PS]
    return Loss(
        targets=targets.cpu().numpy(),
        nll=-log_probs.gather(-1, targets[:, None]).squeeze(-1).double().cpu().numpy(),
        rank=(above.sum(-1) + 1).cpu().numpy(),
        top_ids=ordered.indices[:, :LIKELIEST].cpu().numpy(),
        top_probabilities=ordered.values[:, :LIKELIEST].cpu().numpy(),
        mass_above=(probabilities * above).sum(-1).cpu().numpy(),
        entropy=-(probabilities * log_probs).sum(-1).cpu().numpy(),
        ks=np.array(KS),
        top_k_mass=reached[:, [k - 1 for k in ks]].mT.cpu().numpy(),
        ps=np.array(PS, np.float32),
        top_p_kept=torch.stack(kept).cpu().numpy(),
    )


def better_than(targets: Tensor, logits: Tensor) -> Tensor:
    """Return which tokens (position, vocab) are ranked before the targets (position,)."""
    own = logits.gather(-1, targets[:, None])
    ids = torch.arange(logits.shape[-1], device=logits.device)
    return (logits > own) | ((logits == own) & (ids < targets[:, None]))
