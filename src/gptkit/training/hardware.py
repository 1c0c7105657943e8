"""What the processor can do: facts that rules and reports use, none of them timed but `measured_peak`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from gptkit.system.processor import cpu_has_bf16, refuse_emulated_bf16

# Dense FLOP/s with fp32 accumulation as NVIDIA's data sheets state them, most specific name first:
# (part of the device's name, bf16 or fp16, fp32 without TF32).
PEAKS = (
    ("B200", 2250e12, 80e12),
    ("GH200", 989e12, 67e12),
    ("H200", 989e12, 67e12),
    ("H100 PCIe", 756e12, 51e12),
    ("H100", 989e12, 67e12),
    ("A100", 312e12, 19.5e12),
    ("L40S", 362e12, 91.6e12),
    ("A10G", 125e12, 31.5e12),
    ("L4", 121e12, 30.3e12),
    ("V100", 125e12, 15.7e12),
    ("T4", 65e12, 8.1e12),
)
# Bytes of the GPUs that a plan is made for: of the 80 GB SXM cards and the DGX B200, as their data sheets state them.
GPU_MEMORY = {"A100": 80 * 10**9, "H100": 80 * 10**9, "H200": 141 * 10**9, "B200": 180 * 10**9}


@dataclass(frozen=True)
class Hardware:
    """A device: `kind` is cpu, cuda or mps; `bf16` = it multiplies in bf16; `compiler` = what torch.compile needs.

    `memory` in bytes is a GPU's own, None elsewhere.
    """

    kind: str
    name: str
    bf16: bool
    compiler: str | None
    threads: int
    memory: int | None = None


def hardware_of(device: torch.device) -> Hardware:
    """Return the facts of a device and of the compiler found beside it."""
    compiler, threads = find_compiler(), torch.get_num_threads()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        has_bf16 = (properties.major, properties.minor) >= (8, 0)
        return Hardware("cuda", properties.name, has_bf16, compiler, threads, properties.total_memory)
    if device.type == "mps":
        return Hardware("mps", "Apple GPU", False, None, threads)
    return Hardware(device.type, cpu_name(), cpu_has_bf16(), compiler, threads)


def cpu_name() -> str:
    """Return the CPU's model name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def find_compiler() -> str | None:
    """Return the C++ compiler that torch.compile would use, or None without one or without Python's own headers."""
    default = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    has_headers = (Path(sysconfig.get_path("include")) / "Python.h").is_file()
    return shutil.which(os.environ.get("CXX", default)) if has_headers else None


def known_peak(hardware: Hardware, precision: str) -> float | None:
    """Return the peak FLOP/s of a known GPU in fp32, bf16 or fp16, else None."""
    if hardware.kind != "cuda":
        return None
    known = (single if precision == "fp32" else half for name, half, single in PEAKS if name in hardware.name)
    return next(known, None)


@cache  # a study asks for every run
def measured_peak(precision: str, *, size: int = 1024, seconds: float = 0.3) -> float:
    """Return the best FLOP/s of a square CPU matrix product within a short time, a stand-in for a CPU's peak.

    Raises UsageError for bf16 that the CPU would emulate.
    """
    refuse_emulated_bf16("cpu", precision)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    left @ right  # the first product sets up the library
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
