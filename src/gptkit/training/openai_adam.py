"""GPT-1's own Adam (opt.py of openai/finetune-transformer-lm), which is not torch's AdamW.

Epsilon is added to sqrt(v) before the bias correction ("epsilon-hat"), and the weight decay is multiplied by the
bias-corrected step size: at the first steps it is 15 to 45% of what AdamW would take.

Like torch's fused AdamW it obeys `grad_scale` (what the gradients are divided by) and `found_inf` (1 = change nothing),
both tensors on the device, so that no step waits for the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class OpenAIAdam(torch.optim.Optimizer):
    """w -= rate * (m / (sqrt(v) + epsilon) + weight_decay * w), rate = lr * sqrt(1 - beta2^t) / (1 - beta1^t)."""

    _step_supports_amp_scaling = True
    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

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
        if self.grad_scale is not None:
            gradient = gradient / self.grad_scale
        step = state["step"] + 1
        mean = state["exp_avg"].lerp(gradient, 1 - beta1)
        square = (beta2 * state["exp_avg_sq"]).addcmul_(gradient, gradient, value=1 - beta2)
        rate = group["lr"] * _one_minus_power(beta2, step).sqrt() / _one_minus_power(beta1, step)
        direction = (mean / (square.sqrt() + group["eps"])).add_(parameter, alpha=group["weight_decay"])
        new = parameter - rate * direction
        changes = {"step": step, "exp_avg": mean, "exp_avg_sq": square}
        for old, value in ((parameter, new), *((state[name], value) for name, value in changes.items())):
            old.copy_(value if self.found_inf is None else torch.where(self.found_inf > 0, old, value))


def _one_minus_power(beta: float, step: Tensor) -> Tensor:
    """Return 1 - beta^step; the plain difference would lose four of float32's seven digits at the first steps."""
    return -torch.expm1(step * math.log(beta)) if beta > 0 else torch.ones_like(step)
