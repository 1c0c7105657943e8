"""The compiled decoder for CPUs, behind one door: what stands behind it is C, and nothing outside needs it.

`open_engine` and `read_tokenizer` return None for what they do not understand; then torch and transformers take over,
as they do everywhere where this folder is missing.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from gptkit.decoding.engines import NativeUnavailableError, Quantize
from gptkit.decoding.native.engine import NativeEngine, WeightFormat
from gptkit.decoding.native.library import find_c_compiler
from gptkit.decoding.native.tokenizer import read_tokenizer
from gptkit.decoding.native.weights import map_weights

__all__ = ["c_compiler", "open_engine", "read_tokenizer"]


def open_engine(directory: Path, precision: str, quantize: Quantize) -> NativeEngine | None:
    """Return the engine of the model in a directory; NativeUnavailableError where it cannot be had on this machine."""
    mapped = map_weights(directory)
    if mapped is None:
        return None
    shape, weights = mapped
    bf16 = precision == "bf16"
    floats: WeightFormat = "bf16" if bf16 else "fp32"
    return NativeEngine(shape, weights, weight_format=floats if quantize == "none" else quantize, bf16=bf16)


def c_compiler() -> str | None:
    """Return the command that compiles it here, None without one."""
    try:
        command = find_c_compiler()
    except NativeUnavailableError:
        return None
    return shlex.join(command) if command else None
