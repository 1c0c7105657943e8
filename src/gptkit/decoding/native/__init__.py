"""The compiled decoder for CPUs, written in C; these functions are its whole interface.

`choose_engine` and `read_tokenizer` return None for what they do not understand; then torch and transformers take over,
as they do if this folder is missing.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from gptkit.decoding.engines import ChosenEngine, NativeUnavailableError
from gptkit.decoding.native.engine import NativeEngine, WeightFormat, activation_number
from gptkit.decoding.native.library import find_c_compiler, native_library
from gptkit.decoding.native.tokenizer import read_tokenizer
from gptkit.decoding.native.weights import map_weights, usable
from gptkit.decoding.text_options import Precision, Quantize

__all__ = ["c_compiler", "choose_engine", "read_tokenizer"]


def choose_engine(directory: Path, precision: Precision, quantize: Quantize) -> ChosenEngine | None:
    """Return the engine for the model in a directory; NativeUnavailableError if this machine cannot compile it."""
    mapped = map_weights(directory)
    if mapped is None:
        return None
    shape, weights = mapped
    activation_number(shape.activation_function)
    chosen = native_precision(precision, quantize)
    unquantized: WeightFormat = "bf16" if chosen == "bf16" else "fp32"
    weight_format = unquantized if quantize == "none" else quantize
    library = native_library(weight_format, chosen)

    def open_native() -> NativeEngine:
        arrays = usable(weights)
        return NativeEngine(shape, arrays, weight_format=weight_format, precision=chosen, library=library)

    return ChosenEngine(chosen, open_native)


def native_precision(precision: Precision, quantize: Quantize) -> Precision:
    """Return the precision of activations for what --precision says: auto is int8 with quantized weights, else fp32."""
    if precision == "auto":
        return "fp32" if quantize == "none" else "int8"
    return precision


def c_compiler() -> str | None:
    """Return the command of the C compiler that would be used, None without one."""
    try:
        command = find_c_compiler()
    except NativeUnavailableError:
        return None
    return shlex.join(command) if command else None
