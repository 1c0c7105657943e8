"""The number formats that weights are written in, by their names in --dtype, and the cast that refuses to overflow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gptkit.errors import InputError

TORCH = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in TORCH.items()}


def chosen_dtype(asked: str | None, source: torch.dtype, offered: Sequence[str]) -> str:
    """Return the requested dtype, else the source's own where the format offers it, else f32."""
    own = NAMES.get(source, "f32")
    return asked or (own if own in offered else "f32")


def cast(name: str, tensor: Tensor, dtype: str) -> Tensor:
    """Return a tensor in f32, f16 or bf16, itself if it is in that dtype; InputError if a value overflows f16."""
    if dtype == "f16" and tensor.dtype != torch.float16:
        _require_range(name, tensor)
    return tensor.to(TORCH[dtype])


def refuse_overflow(model: nn.Module, dtype: str) -> None:
    """Raise InputError if a weight has no finite f16 value, before any is written as f16."""
    if dtype != "f16":
        return
    for name, parameter in model.named_parameters():
        _require_range(name, parameter.detach())


def _require_range(name: str, tensor: Tensor) -> None:
    limit = torch.finfo(torch.float16).max
    numbers = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # fp8 has few operations
    largest = max((float(extreme) for extreme in numbers.aminmax()), key=abs)  # allocates nothing
    if not abs(largest) < limit + 16:  # from there on rounding gives infinity; also true for NaN
        message = f"tensor {name} holds {largest:.6g}, which overflows f16 (at most {limit:,.0f})"
        raise InputError(message, where="--dtype f16", fix="write --dtype bf16 or f32")
