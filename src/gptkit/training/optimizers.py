"""Assign parameters to optimizers: one optimizer for all, or Muon for the matrices and AdamW for the rest.

Optimizers follow the protocol of torch's fused AdamW: they divide gradients by `grad_scale`, and where `found_inf` is 1
they change nothing, moments and step counts included; both are tensors on the device. Any other torch.optim optimizer
works too, but its step waits for the device to read `found_inf`.

Layers may have their own learning rates and may be unfrozen later. Until then their gradients are dropped right after
the backward pass: `requires_grad` would break DDP's buckets and compiled code, and a rate of 0 would still update
moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gptkit.training.options import OptimizerName, TrainingOptions
from gptkit.training.own_optimizers import Muon, OpenAIAdam

Groups = list[dict[str, Any]]

FUSED_QKV = ".c_attn.weight"  # suffix of the weights that hold query, key and value in one matrix


@dataclass(frozen=True)
class Layer:
    """Parameters with a common learning rate: `factor` times the peak; frozen, also for decay, before `first_step`."""

    name: str
    factor: float = 1.0
    first_step: int = 1


LayerOf = Callable[[str], Layer]  # a parameter's name -> its layer
ALL_LAYERS = Layer("all")


class Rate(NamedTuple):
    """The peak learning rate of a layer, and the first step that updates it."""

    layer: str
    peak: float
    first_step: int


class OptimizerSet:
    """Optimizers over disjoint parameters, stepped as one; their state is saved under the parameters' names.

    Each parameter group has its `layer` and, in `initial_lr`, its peak; `learning_rate` is the peak that a run reports.
    """

    def __init__(self, names: dict[str, nn.Parameter], parts: Iterable[torch.optim.Optimizer], learning_rate: float):
        self.names = names
        self.parts = tuple(parts)
        self.learning_rate = learning_rate
        for group in self.groups():
            group.setdefault("initial_lr", group["lr"])
            group.setdefault("layer", ALL_LAYERS)

    def groups(self) -> Groups:
        return [group for part in self.parts for group in part.param_groups]

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.groups() for parameter in group["params"]]

    def rates(self) -> list[Rate]:
        """Return every layer's rate in the order of the model's parameters; a layer with Muon matrices has two."""
        rows: dict[int, Rate] = {}
        for part in self.parts:
            for group in part.param_groups:
                layer, suffix = group["layer"], " (Muon)" if isinstance(part, Muon) else ""
                row = Rate(layer.name + suffix, group["initial_lr"], layer.first_step)
                rows |= {id(parameter): row for parameter in group["params"]}
        return list(dict.fromkeys(rows[id(parameter)] for parameter in self.names.values()))

    def replace(self, named: Mapping[str, nn.Parameter], rows: Mapping[str, range]) -> None:
        """Replace the parameters by shards, given by name, which are these `rows` of the full parameters.

        No step may have been taken yet; state that an optimizer created in its constructor is cut in the same way.
        """
        names = {id(parameter): name for name, parameter in self.names.items()}
        self.names = {name: named[name] for name in self.names}
        for part in self.parts:
            for group in part.param_groups:
                group["params"] = [named[names[id(parameter)]] for parameter in group["params"]]
            for parameter, state in list(part.state.items()):
                name = names[id(parameter)]
                del part.state[parameter]
                part.state[named[name]] = {
                    field: value[rows[name].start : rows[name].stop].clone() if value.ndim else value
                    for field, value in state.items()
                }

    def drop_frozen_gradients(self, step: int) -> None:
        """Drop the gradients of layers still frozen at `step`, so that they affect no norm, moment or weight."""
        for group in self.groups():
            if step < group["layer"].first_step:
                for parameter in group["params"]:
                    parameter.grad = None

    def set_learning_rate(self, factor: float) -> None:
        for group in self.groups():
            group["lr"] = group["initial_lr"] * factor

    def step(self, grad_scale: Tensor, found_inf: Tensor) -> None:
        """Update every parameter with its gradient divided by `grad_scale`; do nothing if `found_inf` is 1."""
        for part in self.parts:
            if getattr(part, "_step_supports_amp_scaling", False):
                part.grad_scale = grad_scale  # type: ignore[attr-defined]
                part.found_inf = found_inf  # type: ignore[attr-defined]
                part.step()
            elif not found_inf.item():
                for parameter in (parameter for group in part.param_groups for parameter in group["params"]):
                    if parameter.grad is not None:
                        parameter.grad /= grad_scale
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
        """Load what `state_tensors` returned; raises KeyError for an unknown parameter."""
        owners = {
            id(parameter): part for part in self.parts for group in part.param_groups for parameter in group["params"]
        }
        for key, value in tensors.items():
            name, _, field = key.rpartition("/")
            parameter = self.names[name]
            state = owners[id(parameter)].state[parameter]
            state[field] = value.to(state[field].device if field in state else parameter.device)


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    options: TrainingOptions,
    *,
    precision: str = "fp32",
    layer_of: LayerOf | None = None,
) -> OptimizerSet:
    """Return the optimizer that `options` name, over all parameters that require gradients; tied ones count once.

    Matrices and embeddings are decayed, vectors are not. Muon updates the matrices inside repeated blocks (a number in
    their name: `h.0.attn.c_attn.weight`) and orthogonalizes in bf16 if `precision` is bf16; embeddings, positions and
    heads lie outside the blocks. `layer_of` gives layers their rates and first steps; without it there is one layer.
    """
    layer_of = layer_of or (lambda name: ALL_LAYERS)
    names = {name: parameter for name, parameter in named_parameters if parameter.requires_grad}
    parts: list[torch.optim.Optimizer] = []
    rest = dict(names)
    if options.optimizer == "muon":
        in_blocks = [name for name in names if any(part.isdigit() for part in name.split("."))]
        hidden = {name: rest.pop(name) for name in in_blocks if names[name].ndim == 2}
        if hidden:
            groups = _groups(hidden, options.muon_learning_rate, options.weight_decay, layer_of)
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            fused_qkv = [parameter for name, parameter in hidden.items() if name.endswith(FUSED_QKV)]
            parts.append(Muon(groups, momentum=options.muon_momentum, dtype=dtype, fused_qkv=fused_qkv))
    if rest:
        groups = _groups(rest, options.learning_rate, options.weight_decay, layer_of)
        parts.append(OPTIMIZERS[options.optimizer](groups, options))
    return OptimizerSet(names, parts, options.learning_rate)


def _groups(named: dict[str, nn.Parameter], peak: float, weight_decay: float, layer_of: LayerOf) -> Groups:
    """Return up to two parameter groups per layer: matrices and embeddings with weight decay, vectors without."""
    members: dict[tuple[Layer, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        decay = weight_decay if parameter.ndim > 1 else 0.0
        members.setdefault((layer_of(name), decay), []).append(parameter)
    return [
        {"params": parameters, "lr": peak * layer.factor, "weight_decay": decay, "layer": layer}
        for (layer, decay), parameters in members.items()
    ]


def _adamw(groups: Groups, options: TrainingOptions) -> torch.optim.Optimizer:
    is_fused = all(parameter.device.type != "meta" for group in groups for parameter in group["params"])
    betas = (options.beta1, options.beta2)
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=betas, eps=options.epsilon, fused=is_fused)


def _openai_adam(groups: Groups, options: TrainingOptions) -> torch.optim.Optimizer:
    betas = (options.beta1, options.beta2)
    return OpenAIAdam(groups, lr=options.learning_rate, betas=betas, eps=options.epsilon)


OPTIMIZERS: dict[OptimizerName, Callable[[Groups, TrainingOptions], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "muon": _adamw,  # of everything but the matrices inside blocks
    "openai-adam": _openai_adam,
}
