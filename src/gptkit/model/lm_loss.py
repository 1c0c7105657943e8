"""The language-model loss without all its logits: head, softmax and their gradients, a chunk of tokens at a time.

Logits of a whole batch (4,096 tokens of 50,257 entries in fp32: 0.8 GB) are the largest tensor of a small GPT, and
every pass over them costs as much as a layer. Here a chunk's logits live only until its loss and its gradients are
taken, both in the forward pass: three matrix products, as many as anybody needs, and nothing is computed twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK_ELEMENTS = 2**25  # of one chunk's logits: 64 MiB in bf16, small enough for a server's last-level cache
IGNORE = -100


def lm_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the summed negative log-likelihood of `targets` in nats, a scalar of fp32.

    hidden (..., n_embd), weight (vocab, n_embd), targets (...) of int64, -100 = not supervised. The matrix products run
    in autocast's precision where it is on; a first-order gradient reaches `hidden` and `weight`.
    """
    hidden, targets = hidden.flatten(0, -2), targets.flatten()  # (token, n_embd), (token,)
    if not (torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)):
        return _summed_nll(hidden, weight, targets)
    loss: Tensor = _ChunkedLoss.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return loss


def _summed_nll(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the loss alone, its softmax in fp32 whatever the precision of the products."""
    total = torch.zeros((), device=hidden.device)
    for rows in _chunks(len(hidden), len(weight)):
        logits = F.linear(hidden[rows], weight).float()  # (chunk, vocab)
        total = total + F.cross_entropy(logits, targets[rows], ignore_index=IGNORE, reduction="sum")
    return total


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        dtype = _product_dtype(hidden)
        rows_dtype, weight_dtype = hidden.dtype, weight.dtype
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        hidden_gradient = torch.empty_like(hidden)  # (token, n_embd)
        weight_gradient: Tensor | None = None  # (vocab, n_embd), added up in the weight's own precision
        total = torch.zeros((), device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in _chunks(len(hidden), len(weight)):
                supervised = (targets[rows] != IGNORE)[:, None]  # (chunk, 1)
                nll, logits_gradient = _nll_and_gradient(hidden[rows] @ weight.T, targets[rows])
                total = total + nll
                # What is not supervised is dropped from the narrow factors: a pass over the logits would cost more.
                hidden_gradient[rows] = (logits_gradient @ weight) * supervised
                part = logits_gradient.T @ (hidden[rows] * supervised)
                weight_gradient = part.to(weight_dtype) if weight_gradient is None else weight_gradient.add_(part)
        ctx.save_for_backward(hidden_gradient.to(rows_dtype), weight_gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * loss_gradient.to(hidden_gradient.dtype), weight_gradient * loss_gradient, None


def _nll_and_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return a chunk's summed loss and d loss / d logits = softmax - one-hot, in the logits' precision.

    logits (chunk, vocab). The loss is read off the same softmax, as -log p: in bf16 a relative error of 2^-9 in p, less
    than what rounding the logits themselves costs. A p of 0 counts as the smallest normal number (87 nats). Rows of
    targets that are not supervised add nothing to the loss; their gradient is the caller's to drop.
    """
    column = targets.clamp(min=0)[:, None]  # (chunk, 1)
    p = torch.softmax(logits, dim=-1)  # in one pass over the logits; fp32 inside
    p_target = p.gather(1, column)[:, 0].float()
    nll = -p_target.clamp(min=torch.finfo(torch.float32).tiny).log()
    gradient = p.scatter_add_(1, column, p.new_full(column.shape, -1.0))
    return torch.where(targets != IGNORE, nll, 0.0).sum(), gradient


def _product_dtype(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _chunks(tokens: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return [slice(start, start + size) for start in range(0, tokens, size)]
