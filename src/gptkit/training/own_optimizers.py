"""Optimizers that torch lacks: Muon in float32, and GPT-1's own Adam.

Like torch's fused AdamW they read `grad_scale` (the divisor of the gradients) and `found_inf` (1 = change nothing),
both tensors on the device, so that no step synchronizes with the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of a quintic that brings every singular value to 0.7 to 1.2 in 5 steps
STEPS = 5
PIECE = 1 << 18  # elements of an update of OpenAIAdam on a CPU: 245 ms of 124M parameters, as a whole 344
MAX_STACKED = 1 << 25  # elements orthogonalized together, which bounds the memory of a step


class AmpOptimizer(torch.optim.Optimizer):
    """An optimizer that takes `grad_scale` and `found_inf`, as torch.amp's gradient scaler sets them."""

    _step_supports_amp_scaling = True
    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def write(self, old: Tensor, new: Tensor) -> None:
        """Overwrite `old` with `new`, unless this step is to be skipped."""
        old.copy_(new if self.found_inf is None else torch.where(self.found_inf > 0, old, new))


class Muon(AmpOptimizer):
    """Muon: orthogonalized Nesterov momentum, for the matrices inside the blocks (Keller Jordan, 2024).

    w -= lr * (scale * orthogonalized Nesterov momentum + weight_decay * w), scale = sqrt(max(1, rows / columns)).

    torch.optim.Muon always casts gradients to bf16: with it, 1 and 2 micro-batches differ by 1e-4 to 6e-3, here only
    by rounding. Matrices of equal shape are orthogonalized together, since dispatch dominates the time of small ones.

    Fused query, key and value weights are orthogonalized separately: they are three maps, and in one matrix the value
    gradients, which are the largest, would leave only small updates to queries and keys.

    `dtype` is the arithmetic of the orthogonalization: float32, or bfloat16 where matrix products use it anyway;
    `fused_qkv` are the parameters that stack query, key and value weights.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
        fused_qkv: Collection[Tensor] = (),
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype
        self._fused_qkv = {id(parameter) for parameter in fused_qkv}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            present = [parameter for parameter in group["params"] if parameter.grad is not None]
            for (is_fused, shape), alike in groupby(sorted(present, key=self._kind), key=self._kind):
                matrices, most = list(alike), max(1, MAX_STACKED // math.prod(shape))
                for start in range(0, len(matrices), most):
                    self._update(matrices[start : start + most], group, is_fused=is_fused)

    def _kind(self, matrix: Tensor) -> tuple[bool, tuple[int, ...]]:
        """Return what matrices must have in common to be orthogonalized together."""
        return id(matrix) in self._fused_qkv, tuple(matrix.shape)

    def _update(self, matrices: list[Tensor], group: dict[str, Any], *, is_fused: bool) -> None:
        states = [self.state[matrix] for matrix in matrices]
        for state, matrix in zip(states, matrices, strict=True):
            if not state:
                state["momentum"] = torch.zeros_like(matrix)
        gradients = torch.stack([matrix.grad for matrix in matrices if matrix.grad is not None])  # (n, rows, columns)
        if self.grad_scale is not None:
            gradients /= self.grad_scale
        momenta = torch.stack([state["momentum"] for state in states]).lerp_(gradients, 1 - group["momentum"])
        updates = shaped_update(gradients.lerp_(momenta, group["momentum"]), self.dtype, is_fused=is_fused)
        for matrix, state, momentum, update in zip(matrices, states, momenta, updates, strict=True):
            new = (matrix * (1 - group["lr"] * group["weight_decay"])).add_(update, alpha=-group["lr"])
            self.write(state["momentum"], momentum)
            self.write(matrix, new)


def shaped_update(directions: Tensor, dtype: torch.dtype, *, is_fused: bool = False) -> Tensor:
    """Orthogonalize `directions` (n, rows, columns), fused thirds separately, and scale them by their shape."""
    _, rows, columns = directions.shape
    if is_fused:
        return orthogonalize(directions.reshape(-1, columns, columns), dtype).view_as(directions)
    return orthogonalize(directions, dtype).mul_(max(1.0, rows / columns) ** 0.5)


def orthogonalize(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Bring all singular values of `matrices` (n, rows, columns) near 1, by Newton-Schulz; returns float32."""
    a, b, c = COEFFICIENTS
    norms: Tensor = torch.linalg.matrix_norm(matrices, keepdim=True)
    x = (matrices / norms.clamp_min(1e-30)).to(dtype)
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    for _ in range(STEPS):
        gram = x @ x.mT  # (n, short, short)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).float()


class OpenAIAdam(AmpOptimizer):
    """GPT-1's own Adam (opt.py of openai/finetune-transformer-lm), which differs from AdamW.

    w -= rate * (m / (sqrt(v) + epsilon) + weight_decay * w), rate = lr * sqrt(1 - beta2^t) / (1 - beta1^t).

    Epsilon is added to sqrt(v) before the bias correction ("epsilon-hat"), and weight decay is scaled by the
    bias-corrected step size: in the first steps it is 15 to 45% of AdamW's.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        beta1, beta2 = group["betas"]
        step = state["step"] + 1
        rate = group["lr"] * _one_minus_power(beta2, step).sqrt() / _one_minus_power(beta1, step)
        for weight, slope, mean, square in _pieces(parameter, gradient, state["exp_avg"], state["exp_avg_sq"]):
            if self.grad_scale is not None:
                slope = slope / self.grad_scale
            new_mean = mean.lerp(slope, 1 - beta1)
            new_square = (beta2 * square).addcmul_(slope, slope, value=1 - beta2)
            direction = (new_mean / (new_square.sqrt() + group["eps"])).add_(weight, alpha=group["weight_decay"])
            self.write(weight, weight - rate * direction)
            self.write(mean, new_mean)
            self.write(square, new_square)
        self.write(state["step"], step)


def _pieces(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Return views of tensors of one shape; on a CPU they fit into its caches, as an update passes over them often."""
    if tensors[0].device.type != "cpu" or not all(tensor.is_contiguous() for tensor in tensors):
        return [tensors]
    return zip(*(tensor.view(-1).split(PIECE) for tensor in tensors), strict=True)


def _one_minus_power(beta: float, step: Tensor) -> Tensor:
    """Return 1 - beta^step; the plain difference would lose four of float32's seven digits in the first steps."""
    return -torch.expm1(step * math.log(beta)) if beta > 0 else torch.ones_like(step)
