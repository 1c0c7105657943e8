"""Memory-efficient language-model loss: LM head, softmax and their gradients, one chunk of tokens at a time.

The logits of a whole batch (4,096 tokens of 50,257 entries in fp32: 0.8 GB) are the largest tensor of a small GPT, and
each pass over them costs as much as a layer. Here a chunk's logits live only until its loss and gradients are computed,
both in the forward pass: three matrix products, the minimum, and nothing is recomputed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Logits per chunk: each chunk costs a pass over the weight's gradient, and small products leave a GPU idle.
CHUNK_ELEMENTS = {"cpu": 2**26, "cuda": 2**28}  # 128 and 512 MiB in bf16
# Without gradients there is no such pass, and smaller chunks of fp32 logits fit into memory that training freed.
SCORED_ELEMENTS = {"cpu": 2**23, "cuda": 2**26}  # 32 and 256 MiB in fp32
ALIGNMENT = {"cpu": 1, "cuda": 64}  # vocabulary rows: on an H100, 50,257 columns take twice as long as 50,304
IGNORE = -100  # the label of a position that is not supervised


def lm_loss(hidden: Tensor, weight: Tensor, targets: Tensor, token_weights: Tensor | None = None) -> Tensor:
    """Return the summed negative log-likelihood of `targets` in nats, a scalar of fp32.

    hidden (..., n_embd), weight (vocab, n_embd), targets (...) of int64, -100 = not supervised. Matrix products run in
    autocast's precision if it is on; `hidden` and `weight` receive first-order gradients. `token_weights` (...) in fp32
    multiply the terms of the sum.
    """
    hidden, targets = hidden.flatten(0, -2), targets.flatten()  # (token, n_embd), (token,)
    token_weights = None if token_weights is None else token_weights.flatten()  # (token,)
    if not (torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)):
        return _summed_nll(hidden, weight, targets, token_weights)
    loss: Tensor = _ChunkedLoss.apply(hidden, weight, targets, token_weights)  # type: ignore[no-untyped-call]
    return loss


def _summed_nll(hidden: Tensor, weight: Tensor, targets: Tensor, token_weights: Tensor | None) -> Tensor:
    """Return the loss without gradients; the softmax is in fp32 whatever the precision of the products."""
    total = torch.zeros((), device=hidden.device)
    for rows in _chunks(hidden, weight, SCORED_ELEMENTS):
        logits = F.linear(hidden[rows], weight).float()  # (chunk, vocab)
        nll = F.cross_entropy(logits, targets[rows], ignore_index=IGNORE, reduction="none")
        total = total + (nll if token_weights is None else nll * token_weights[rows]).sum()
    return total


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, token_weights: Tensor | None) -> Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        rows_dtype, weight_dtype = hidden.dtype, weight.dtype
        entries = len(weight)
        hidden, weight = hidden.to(dtype), _aligned(weight.to(dtype))  # (vocab and unused rows, n_embd)
        columns = _transposed(weight)  # (n_embd, vocab)
        scale = (targets != IGNORE) if token_weights is None else token_weights * (targets != IGNORE)  # (token,)
        hidden_gradient = torch.empty_like(hidden)  # (token, n_embd)
        weight_gradient: Tensor | None = None  # (n_embd, vocab), accumulated in the weight's own precision
        total = torch.zeros((), device=hidden.device)
        with torch.autocast(kind, enabled=False):
            for rows in _chunks(hidden, weight, CHUNK_ELEMENTS):
                logits = hidden[rows] @ columns  # (chunk, vocab and unused columns)
                logits[:, entries:] = -math.inf
                nll, logits_gradient = _nll_and_gradient(logits, targets[rows])
                total = total + (nll * scale[rows]).sum()
                # Scale the narrow factors, not the logits' gradient: another pass over the logits would cost more.
                row_scale = scale[rows, None]  # (chunk, 1)
                hidden_gradient[rows] = (logits_gradient @ weight) * row_scale
                part = _transposed((hidden[rows] * row_scale).to(dtype)) @ logits_gradient
                weight_gradient = part.to(weight_dtype) if weight_gradient is None else weight_gradient.add_(part)
        ctx.save_for_backward(hidden_gradient.to(rows_dtype), weight_gradient)
        ctx.entries = entries
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        weight_gradient = weight_gradient[:, : ctx.entries]
        scaled = weight_gradient.new_empty(weight_gradient.T.shape)  # (vocab, n_embd), dense as the weight is
        torch.mul(weight_gradient.T, loss_gradient, out=scaled)
        return hidden_gradient * loss_gradient.to(hidden_gradient.dtype), scaled, None, None


def _nll_and_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return a chunk's losses (chunk,) and d loss / d logits = softmax - one-hot, in the logits' precision.

    logits (chunk, vocab). The loss is -log p of the same softmax: in bf16 a relative error of 2^-9 in p, less than the
    error of rounding the logits themselves. p = 0 is clamped to the smallest normal number (87 nats). The caller drops
    the loss and gradient of unsupervised rows.
    """
    entry = (torch.arange(len(targets), device=targets.device), targets.clamp(min=0))
    p = torch.softmax(logits, dim=-1)  # one pass over the logits; fp32 inside
    p_target = p[entry]  # (chunk,)
    nll = -p_target.float().clamp(min=torch.finfo(torch.float32).tiny).log()
    return nll, p.index_put_(entry, p_target - 1)  # on a CPU, scatter_ and scatter_add_ copy p twice


def _transposed(matrix: Tensor) -> Tensor:
    """Return a dense copy of matrix.T: oneDNN multiplies by it twice as fast as by the view.

    In blocks, because torch copies one large transposed matrix on a single thread.
    """
    return torch.cat([block.T for block in matrix.split(512)], dim=1)


def _aligned(weight: Tensor) -> Tensor:
    """Return the weight (vocab, n_embd) padded with rows of zeros to the device's preferred alignment."""
    missing = -len(weight) % ALIGNMENT.get(weight.device.type, 1)
    return F.pad(weight, (0, 0, 0, missing)) if missing else weight


def _chunks(hidden: Tensor, weight: Tensor, most: Mapping[str, int]) -> list[slice]:
    """Return slices of the tokens, equal except for the last, of at most `most` logits for the device type."""
    tokens, elements = len(hidden), most.get(hidden.device.type, most["cpu"])
    largest = max(1, elements // len(weight))
    size = max(1, -(-tokens // -(-tokens // largest))) if tokens else 1
    return [slice(start, start + size) for start in range(0, tokens, size)]
