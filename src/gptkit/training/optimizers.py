"""Which parameter is updated by what: one optimizer, or Muon for the matrices and AdamW for the rest.

All obey the protocol of torch's fused AdamW: they divide gradients by `grad_scale` and change nothing, moments and
step counts included, where `found_inf` is 1; both are tensors on the device.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.options import TrainingOptions
from gptkit.training.muon import Muon
from gptkit.training.openai_adam import OpenAIAdam

Groups = list[dict[str, Any]]


class OptimizerSet:
    """Optimizers over disjoint parameters, stepped as one, their state known by the parameters' names.

    Each group keeps its peak in `initial_lr`; `learning_rate` is the peak that a run reports.
    """

    def __init__(self, names: dict[str, nn.Parameter], parts: Iterable[torch.optim.Optimizer], learning_rate: float):
        self.names = names
        self.parts = tuple(parts)
        self.learning_rate = learning_rate
        for group in self.groups():
            group.setdefault("initial_lr", group["lr"])

    def groups(self) -> Groups:
        return [group for part in self.parts for group in part.param_groups]

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.groups() for parameter in group["params"]]

    def set_learning_rate(self, factor: float) -> None:
        for group in self.groups():
            group["lr"] = group["initial_lr"] * factor

    def step(self, grad_scale: Tensor, found_inf: Tensor) -> None:
        """Update every parameter with its gradient divided by `grad_scale`, or nothing where `found_inf` is 1."""
        for part in self.parts:
            part.grad_scale = grad_scale  # type: ignore[attr-defined]
            part.found_inf = found_inf  # type: ignore[attr-defined]
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the state of every parameter as `parameter/field`."""
        return {
            f"{name}/{field}": value
            for name, parameter in self.names.items()
            for part in self.parts
            for field, value in part.state.get(parameter, {}).items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over the state that `state_tensors` returned; KeyError names a parameter that is not there."""
        owners = {id(one): part for part in self.parts for group in part.param_groups for one in group["params"]}
        for key, value in tensors.items():
            name, _, field = key.rpartition("/")
            parameter = self.names[name]
            owners[id(parameter)].state[parameter][field] = value.to(parameter.device)


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], options: TrainingOptions, *, precision: str = "fp32"
) -> OptimizerSet:
    """Return what `options.optimizer` asks for; tied weights count once, by their first name, frozen ones not.

    Matrices and embeddings are decayed, vectors are not. Muon takes the matrices inside repeated blocks (a number in
    their name: `h.0.attn.c_attn.weight`) and orthogonalises in bf16 if `precision` is bf16; embeddings, positions and
    heads lie outside the blocks.
    """
    names: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, parameter in named_parameters:
        if parameter.requires_grad and id(parameter) not in seen:
            seen.add(id(parameter))
            names[name] = parameter
    parts: list[torch.optim.Optimizer] = []
    rest = dict(names)
    if options.optimizer == "muon":
        hidden = {name: rest.pop(name) for name in names if is_hidden_matrix(name, names[name])}
        if hidden:
            parts.append(_muon(list(hidden.values()), options, precision))
    if rest:
        parts.append(_adam(decay_groups(rest.values(), options.weight_decay), options))
    return OptimizerSet(names, parts, options.learning_rate)


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter is a matrix inside one of a model's repeated blocks."""
    return parameter.ndim == 2 and any(part.isdigit() for part in name.split("."))


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> Groups:
    """Return a decayed group of matrices and embeddings and an undecayed one of vectors, as far as there are any."""
    by_decay: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        by_decay.setdefault(weight_decay if parameter.ndim > 1 else 0.0, []).append(parameter)
    return [{"params": members, "weight_decay": decay} for decay, members in by_decay.items()]


def _muon(matrices: list[nn.Parameter], options: TrainingOptions, precision: str) -> Muon:
    return Muon(
        matrices,
        lr=options.muon_learning_rate,
        momentum=options.muon_momentum,
        weight_decay=options.weight_decay,
        dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
    )


def _adam(groups: Groups, options: TrainingOptions) -> torch.optim.Optimizer:
    betas = (options.beta1, options.beta2)
    if options.optimizer == "openai-adam":
        return OpenAIAdam(groups, lr=options.learning_rate, betas=betas, eps=options.epsilon)
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=betas, eps=options.epsilon, fused=True)
