"""`--steer LAYER.UNIT=VALUE`: hold one hidden unit of an MLP, after its activation, at a value at every position."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gptkit.errors import UsageError
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import described_in

if TYPE_CHECKING:  # it needs torch, which takes seconds to import
    from torch import Tensor, nn

    from gptkit.model.modeling_gpt import GPTForCausalLM

LARGEST = 1e6  # value; logits overflow far above it
FORM = "pass LAYER.UNIT=VALUE, such as 2.17=3.5, a value of at most a million"


class Steering(NamedTuple):
    layer: int
    unit: int
    value: float


def parse_steering(text: str) -> Steering:
    """Return what --steer says; UsageError unless it is a layer, a unit and a number within LARGEST."""
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,6})=(.+)", text, re.ASCII)
    try:
        value = float(found[3]) if found else math.nan
    except ValueError:
        value = math.nan
    if found is None or not abs(value) <= LARGEST:
        raise UsageError(f"{text!r} does not name a unit and a value", where="--steer", fix=FORM)
    return Steering(int(found[1]), int(found[2]), value)


def require_unit(steering: Steering, directory: Path) -> None:
    """Raise UsageError if the model in a directory has no such unit, as its config.json says; needs no torch."""
    from gptkit.model_files import GPTShape  # it would slow --help down

    raw = read_json_object(described_in(directory) / "config.json")
    layers = _size(raw, "n_layer", GPTShape.n_layer)
    units = _size(raw, "n_inner", 4 * _size(raw, "n_embd", GPTShape.n_embd))
    if steering.layer >= layers or steering.unit >= units:
        fix = f"pass a layer from 0 to {layers - 1} and a unit from 0 to {units - 1}"
        raise UsageError(f"the model has no unit {steering.layer}.{steering.unit}", where="--steer", fix=fix)


def steer(model: GPTForCausalLM, steering: Steering) -> None:
    """Hold the unit of a model at the value in every forward pass from now on."""

    def hold(module: nn.Module, inputs: tuple[Tensor, ...], hidden: Tensor) -> Tensor:
        held = hidden.clone()  # (..., n_inner)
        held[..., steering.unit] = steering.value
        return held

    model.transformer.h[steering.layer].mlp.act.register_forward_hook(hold)  # type: ignore[union-attr]


def _size(raw: dict[str, Any], name: str, default: int) -> int:
    size = raw.get(name)
    return size if type(size) is int else default
