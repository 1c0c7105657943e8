"""Choose the device, and find out whether its CPU multiplies bf16 matrices in hardware.

torch and oneDNN may be forbidden to use it: ATEN_CPU_CAPABILITY limits torch's own kernels, ONEDNN_MAX_CPU_ISA (or
DNNL_MAX_CPU_ISA) oneDNN's matrix products.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING

from gptkit.errors import UsageError

if TYPE_CHECKING:
    import torch

EMULATING = ("AVX512_CORE", "AVX512_CORE_VNNI")  # under these limits oneDNN accepts bf16, but multiplies in fp32


def choose_device(asked: str) -> torch.device:
    """Return the device for auto, cpu, cuda or mps; UsageError if it is not available."""
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return torch.device(next(kind for kind, is_available in available.items() if is_available))
    if not available[asked]:
        message = f"no {asked.upper()} device available"
        raise UsageError(message, where="--device", fix="leave it out, or use --device cpu")
    return torch.device(asked)


def cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bf16 matrices in hardware; emulation takes up to 30 times as long as fp32."""
    import torch

    if not hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"):
        return False
    allowed = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if platform.machine() not in ("x86_64", "AMD64"):
        return sys.platform == "linux" and allowed
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or onednn_limit() in EMULATING:
        return False
    return allowed and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def cpu_has_amx() -> bool:
    """Return whether matrix products run on AMX tiles."""
    import torch

    limit = onednn_limit()
    allowed = "AMX" in limit or limit in ("", "ALL", "DEFAULT")
    return allowed and cpu_has_bf16() and bool(torch.cpu._is_amx_tile_supported())


def onednn_limit() -> str:
    """Return the newest instruction set that oneDNN may use, "" if there is no limit."""
    return (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "").upper()


def emulated_bf16_error(fix: str = "use --precision auto") -> UsageError:
    """Return the error for a request of bf16 on a CPU that would emulate it."""
    message = "this CPU has no bf16 matrix products, and emulated ones are many times slower than fp32"
    return UsageError(message, where="--precision bf16", fix=fix)


def refuse_emulated_bf16(device: str, precision: str) -> None:
    """Raise UsageError if bf16 was requested on a CPU that would emulate it."""
    if device == "cpu" and precision == "bf16" and not cpu_has_bf16():
        raise emulated_bf16_error()
