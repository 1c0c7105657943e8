"""Where and in which arithmetic to generate."""

from __future__ import annotations

import torch

from gptkit.errors import UsageError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def choose_device(asked: str) -> torch.device:
    """Return the device for auto, cpu, cuda or mps; UsageError for one that is not there."""
    is_there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return torch.device(next(kind for kind, there in is_there.items() if there))
    if not is_there[asked]:
        raise UsageError(f"no {asked} device is here", where="--device", fix="leave it out, or use --device cpu")
    return torch.device(asked)


def choose_dtype(asked: str, device: torch.device) -> torch.dtype:
    """Return the dtype of weights and activations for auto, fp32 or bf16.

    auto is bf16 on a GPU that has it, else fp32: there a row of a product does not depend on the others, so a sample's
    text is the same in any batch, which bf16 products do not grant.
    """
    if asked != "auto":
        return DTYPES[asked]
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bf16 else torch.float32
