"""Facts about the hardware, and what `auto` chooses on it: precision, compilation, micro-batch.

The choices are pure functions of device, model size, total work and available compiler; only `measured_peak` reads a
clock. They are stored in every checkpoint: a resumed run reuses them, or says that bits may differ.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import sys
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from gptkit.errors import UsageError
from gptkit.model_files import LSTM, MASKED
from gptkit.system.processor import cpu_has_bf16, emulated_bf16_error, refuse_emulated_bf16

# Dense FLOP/s with fp32 accumulation from NVIDIA's data sheets, the most specific name first:
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
# Memory in bytes of the GPUs in a dry run's table, from their data sheets: the 80 GB SXM cards and the DGX B200.
GPU_MEMORY = {"A100": 80 * 10**9, "H100": 80 * 10**9, "H200": 141 * 10**9, "B200": 180 * 10**9}

# Nominal speeds and costs for `--compile auto`; only their order of magnitude matters.
EAGER_FLOPS = {("cpu", "fp32"): 1.2e11, ("cpu", "bf16"): 3e11, ("cuda", "fp32"): 3e13, ("cuda", "bf16"): 1.5e14}
COMPILE_SECONDS = {"cpu": 19.0, "cuda": 30.0}  # with a cold cache; one block, however many layers there are
TIME_SAVED = 0.15  # fraction of an eager run's time

CPU_TOKENS = 4096  # per forward pass: more would not fit the caches, fewer would leave cores idle
CUDA_TOKENS = 65536
RESERVED_FRACTION = 0.3  # of GPU memory, for the loss, fragmentation and CUDA's libraries


@dataclass(frozen=True)
class Hardware:
    """A device: `kind` is cpu, cuda or mps; `bf16` = multiplies bf16 in hardware; `compiler` = torch.compile's, if any.

    `memory` is a GPU's own, in bytes; None on other devices.
    """

    kind: str
    name: str
    bf16: bool
    compiler: str | None
    threads: int
    memory: int | None = None


def hardware_of(device: torch.device) -> Hardware:
    """Return the facts about a device, with the compiler found on this machine."""
    compiler, threads = find_compiler(), torch.get_num_threads()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        has_bf16 = (properties.major, properties.minor) >= (8, 0)
        return Hardware("cuda", properties.name, has_bf16, compiler, threads, properties.total_memory)
    if device.type == "mps":
        return Hardware("mps", "Apple GPU", False, None, threads)
    return Hardware(device.type, cpu_name(), cpu_has_bf16(), compiler, threads)


def cpu_name() -> str:
    """Return the CPU's model name, or its architecture on systems that do not report one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def find_compiler() -> str | None:
    """Return the C++ compiler that torch.compile would use, or None if it or Python's headers are missing."""
    default = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    has_headers = (Path(sysconfig.get_path("include")) / "Python.h").is_file()
    return shutil.which(os.environ.get("CXX", default)) if has_headers else None


def known_peak(hardware: Hardware, precision: str) -> float | None:
    """Return the peak FLOP/s of a known GPU in fp32, bf16 or fp16; None for other devices."""
    if hardware.kind != "cuda":
        return None
    known = (single if precision == "fp32" else half for name, half, single in PEAKS if name in hardware.name)
    return next(known, None)


@cache  # a study of several runs measures it once
def measured_peak(precision: str, *, size: int = 1024, seconds: float = 0.3) -> float:
    """Return the best FLOP/s of a square matrix product within `seconds`, as an estimate of the CPU's peak.

    Raises UsageError for bf16 on a CPU that would emulate it.
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


@dataclass(frozen=True)
class Choices:
    """How a run computes; `notes` are log lines about it.

    `micro_batch` is the number of rows per forward pass that fitted after memory ran out, None if it never did.
    """

    precision: str
    compile: bool
    threads: int
    device: str
    micro_batch: int | None = None
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint stores."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "notes"}


def choose(precision: str, compile: str, hardware: Hardware, *, total_flops: float | None = None) -> Choices:
    """Return the choices for the options --precision and --compile; without `total_flops`, auto does not compile.

    Raises what `choose_precision` and `choose_compile` raise.
    """
    chosen = choose_precision(precision, hardware)
    compiles, note = choose_compile(compile, hardware, chosen, total_flops=total_flops)
    return Choices(chosen, compiles, hardware.threads, hardware.kind, notes=(note,) if note else ())


def choose_precision(asked: str, hardware: Hardware) -> str:
    """Return fp32, bf16 or fp16; auto is bf16 where the hardware has it.

    Raises UsageError for fp16 without CUDA, and for bf16 on a CPU that would emulate it.
    """
    if asked == "auto":
        return "bf16" if hardware.bf16 else "fp32"
    if can_train_in(asked, hardware):
        return asked
    if asked == "fp16":
        message = f"fp16 training needs a CUDA device, but this is {hardware.kind}"
        raise UsageError(message, where="--precision fp16", fix="use --precision auto")
    raise emulated_bf16_error("use --precision auto (a run started with --precision bf16 needs a CPU with bf16)")


def can_train_in(precision: str, hardware: Hardware) -> bool:
    """Return whether a device trains in a precision at a useful speed; GPUs emulate bf16 well enough."""
    if precision == "fp16":
        return hardware.kind == "cuda"
    return precision != "bf16" or hardware.bf16 or hardware.kind != "cpu"


def choose_compile_for(asked: str, model: Any) -> str:
    """Return the --compile of a model: auto compiles no LSTM, whose layers are kernels already; UsageError for on."""
    if model.config.model_type != LSTM:
        return asked
    if asked == "on":
        raise UsageError("an LSTM has no blocks to compile", where="--compile on", fix="leave it out")
    return "off"


def choose_compile(
    asked: str, hardware: Hardware, precision: str, *, total_flops: float | None = None
) -> tuple[bool, str | None]:
    """Return whether to compile, and a log line if auto would but cannot.

    auto compiles if it saves more time over `total_flops` than compiling takes. Raises UsageError for `on` without a
    compiler.
    """
    missing = hardware.compiler is None
    if asked == "on" and missing:
        fix = "install g++ and python3-dev, or leave --compile out"
        raise UsageError("torch.compile needs a C++ compiler and Python's headers", where="--compile on", fix=fix)
    if asked != "auto":
        return asked == "on", None
    if total_flops is None or hardware.kind not in COMPILE_SECONDS:
        return False, None
    speed = EAGER_FLOPS[hardware.kind, "fp32" if precision == "fp32" else "bf16"]
    pays = total_flops / speed * TIME_SAVED > COMPILE_SECONDS[hardware.kind]
    if pays and missing:
        return False, "not compiling (--compile auto): no C++ compiler or no Python headers found"
    return pays, None


def choose_micro_batch(hardware: Hardware, model: Any, *, rows: int, sequence_length: int) -> int:
    """Return how many sequences, at most `rows`, fit one forward pass: a CPU's caches or a GPU's memory limit them.

    For the backward pass a GPT keeps about 48 bytes per token, layer and unit of width, with 16-bit autocast and flash
    attention: residual stream and norms in fp32 (4 x 4), their 16-bit copies (2 x 2), query, key, value and attention
    output (8), the MLP before and after its activation (16), two dropout masks and outputs (4).
    """
    tokens = CPU_TOKENS if hardware.kind == "cpu" else CUDA_TOKENS
    if hardware.memory is not None:
        in_fp32 = 16 * model.num_parameters()  # weights, gradients and two moments
        free = hardware.memory * (1 - RESERVED_FRACTION) - in_fp32
        tokens = min(tokens, int(free / (48 * model.config.n_layer * model.config.n_embd)))
    return max(1, min(rows, tokens // sequence_length))


def micro_batch_rows(rows: int, processes: int) -> int:
    """Return the largest micro-batch that gives every process work."""
    return -(-rows // processes)


def draws_note(micro_batch: int, rows: int, processes: int) -> str | None:
    """Return a log line if the number of processes determined the micro-batch, and with it the dropout masks."""
    if processes == 1 or micro_batch != micro_batch_rows(rows, processes):
        return None
    why = f"micro-batches of {micro_batch}, so that {processes} processes have work"
    return f"{why}; --micro-batch {micro_batch} gives the same dropout masks on any number of processes"


def idle_note(micro_batches: int, processes: int, *, rows: int) -> str | None:
    """Return a warning, with the fix, if some processes get no micro-batch."""
    if micro_batches >= processes:
        return None
    idle = f"{processes - micro_batches} of {processes} processes have no work"
    return f"{idle}: pass --micro-batch {micro_batch_rows(rows, processes)} (which changes the dropout masks)"


def flops_per_token(model: Any, sequence_length: int, *, idle: int = 0) -> float:
    """Return the FLOPs per token of a GPT's training step: 6N for the weights, 6 L d T for causal attention.

    N excludes the position embeddings, which are looked up, not multiplied, and `idle` parameters. Attention is half
    of the usual 12 L d T (PaLM, appendix B), because a causal kernel skips the other half; a masked model has all of
    it, an LSTM none.
    """
    config = model.config
    if config.model_type == LSTM:
        return float(6 * (model.num_parameters() - idle))
    multiplied = model.num_parameters() - config.n_positions * config.n_embd - idle
    halves = 2 if config.model_type == MASKED else 1
    return float(6 * (multiplied + halves * config.n_layer * config.n_embd * sequence_length))


def reuse(stored: Mapping[str, Any], now: Choices, hardware: Hardware) -> Choices:
    """Return the choices of a resumed run: as stored where the hardware allows it, with a note on all that differs."""
    compiles = bool(stored.get("compile", now.compile)) and hardware.compiler is not None
    precision = str(stored.get("precision", now.precision))
    if not can_train_in(precision, hardware):
        precision = now.precision
    kept = dataclasses.replace(now, precision=precision, compile=compiles, micro_batch=stored.get("micro_batch"))
    changed = [
        f"{name} was {stored[name]}, now {value}"
        for name, value in kept.facts().items()
        if stored.get(name, value) != value
    ]
    if not changed:
        return kept
    note = f"bits may differ from an uninterrupted run: {'; '.join(changed)}"
    return dataclasses.replace(kept, notes=(*now.notes, note))
