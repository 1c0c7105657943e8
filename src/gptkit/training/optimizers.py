"""Which parameter is updated by what: one optimizer, or Muon for the matrices and AdamW for the rest.

Ours obey the protocol of torch's fused AdamW: they divide gradients by `grad_scale` and change nothing, moments and
step counts included, where `found_inf` is 1; both are tensors on the device. Any other of torch.optim's fits as it is:
its step waits for the device to learn of `found_inf`.

Layers may have rates of their own and join in late. Until then their gradients are dropped before anyone sees them:
`requires_grad` would break DDP's buckets and what is compiled, and a rate of 0 would still fill moments.
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

FUSED_QKV = ".c_attn.weight"  # how the names of query, key and value weights in one matrix end


@dataclass(frozen=True)
class Layer:
    """Parameters with one rate: `factor` times the peak, and none at all, nor decay, before `first_step`."""

    name: str
    factor: float = 1.0
    first_step: int = 1


LayerOf = Callable[[str], Layer]  # a parameter's name -> its layer
ALL_LAYERS = Layer("all")


class Rate(NamedTuple):
    """The peak learning rate of a layer, and the step at which it joins in."""

    layer: str
    peak: float
    first_step: int


class OptimizerSet:
    """Optimizers over disjoint parameters, stepped as one, their state known by the parameters' names.

    Each group keeps its layer in `layer` and its peak in `initial_lr`; `learning_rate` is the peak that a run reports.
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
        """Return every layer's rate in the order of the data; where Muon has a layer's matrices there are two."""
        rows: dict[int, Rate] = {}
        for part in self.parts:
            for group in part.param_groups:
                layer, suffix = group["layer"], " (Muon)" if isinstance(part, Muon) else ""
                row = Rate(layer.name + suffix, group["initial_lr"], layer.first_step)
                rows |= {id(parameter): row for parameter in group["params"]}
        return list(dict.fromkeys(rows[id(parameter)] for parameter in self.names.values()))

    def replace(self, named: Mapping[str, nn.Parameter], rows: Mapping[str, range]) -> None:
        """Update the shards of the parameters from now on: by name, and which rows of the whole they are.

        There must be no state yet, but for what an optimizer made of it when it was built.
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
        """Drop the gradients of the layers that join in after `step`: no norm, moment or weight knows of them."""
        for group in self.groups():
            if step < group["layer"].first_step:
                for parameter in group["params"]:
                    parameter.grad = None

    def set_learning_rate(self, factor: float) -> None:
        for group in self.groups():
            group["lr"] = group["initial_lr"] * factor

    def step(self, grad_scale: Tensor, found_inf: Tensor) -> None:
        """Update every parameter with its gradient divided by `grad_scale`, or nothing where `found_inf` is 1."""
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
        """Take over the state that `state_tensors` returned; KeyError names a parameter that is not there."""
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
    """Return what `options.optimizer` asks for; tied weights count once, as torch names them, frozen ones not.

    Matrices and embeddings are decayed, vectors are not. Muon takes the matrices inside repeated blocks (a number in
    their name: `h.0.attn.c_attn.weight`) and orthogonalises in bf16 if `precision` is bf16; embeddings, positions and
    heads lie outside the blocks. `layer_of` gives layers their rates and first steps; without it all are one.
    """
    layer_of = layer_of or (lambda name: ALL_LAYERS)
    names = {name: parameter for name, parameter in named_parameters if parameter.requires_grad}
    parts: list[torch.optim.Optimizer] = []
    rest = dict(names)
    if options.optimizer == "muon":
        hidden = {name: rest.pop(name) for name in names if is_hidden_matrix(name, names[name])}
        if hidden:
            groups = _groups(hidden, options.muon_learning_rate, options.weight_decay, layer_of)
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            fused_qkv = [parameter for name, parameter in hidden.items() if name.endswith(FUSED_QKV)]
            parts.append(Muon(groups, momentum=options.muon_momentum, dtype=dtype, fused_qkv=fused_qkv))
    if rest:
        groups = _groups(rest, options.learning_rate, options.weight_decay, layer_of)
        parts.append(OPTIMIZERS[options.optimizer](groups, options))
    return OptimizerSet(names, parts, options.learning_rate)


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter is a matrix inside one of a model's repeated blocks."""
    return parameter.ndim == 2 and any(part.isdigit() for part in name.split("."))


def _groups(named: dict[str, nn.Parameter], peak: float, weight_decay: float, layer_of: LayerOf) -> Groups:
    """Return for each layer a decayed group of matrices and embeddings and an undecayed one of vectors, if any."""
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
    "muon": _adamw,  # of what is no matrix inside a block
    "openai-adam": _openai_adam,
}
