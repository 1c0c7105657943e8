"""Where and in which arithmetic to generate."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gptkit.errors import UsageError

if TYPE_CHECKING:  # importing it takes seconds, which a CPU's own engine does without
    import torch

GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's driver, AMD's, and either under Windows' Linux
WINDOWS_DRIVERS = ("nvcuda.dll", "amdhip64.dll")


def gpu_may_be_there() -> bool:
    """Return False where torch would surely find no GPU, without importing it; True means: ask torch."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not torch_built_for_gpu():
        return False
    if sys.platform == "win32":
        system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32"
        return any((system / name).exists() for name in WINDOWS_DRIVERS)
    return any(Path(name).exists() for name in GPU_FILES)


def torch_built_for_gpu() -> bool:
    """Return whether the installed torch was built with CUDA or ROCm, read from its version file; True if in doubt."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return True
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return True
    found = re.findall(r"^(?:cuda|hip)\b[^=]*=\s*(.+)$", text, re.MULTILINE)
    return not found or any(value.strip() != "None" for value in found)


def choose_device(asked: str) -> torch.device:
    """Return the device for auto, cpu, cuda or mps; UsageError for one that is not there."""
    import torch

    is_there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return torch.device(next(kind for kind, there in is_there.items() if there))
    if not is_there[asked]:
        raise UsageError(f"no {asked} device is here", where="--device", fix="leave it out, or use --device cpu")
    return torch.device(asked)


def choose_dtype(asked: str, device: torch.device) -> torch.dtype:
    """Return the dtype of weights and activations for auto, fp32 or bf16; UsageError for bf16 that a CPU would emulate.

    auto is bf16 on a GPU that has it, else fp32: there a row of a product does not depend on the others, so a sample's
    text is the same in any batch, which bf16 products do not grant.
    """
    import torch

    from gptkit.system.processor import refuse_emulated_bf16

    refuse_emulated_bf16(device.type, asked)
    if asked != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[asked]
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bf16 else torch.float32
