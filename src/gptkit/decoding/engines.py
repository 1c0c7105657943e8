"""From a model's directory to what computes its logits: the native engine on a CPU with a C compiler, else torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from gptkit.decoding.engine import Engine
from gptkit.decoding.native.engine import NativeEngine, WeightFormat
from gptkit.decoding.native.library import NativeUnavailableError
from gptkit.decoding.placement import choose_device, choose_dtype, gpu_may_be_there
from gptkit.errors import UsageError
from gptkit.model_files.weights import map_weights

Switch = Literal["auto", "on", "off"]
Weights = Literal["none", "int8", "int4"]
COMPILE_TOKENS = 4096  # new tokens for which compiling a GPU's step is thought to pay; unmeasured


def open_engine(
    directory: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    quantize: Weights = "none",
    compile: Switch = "auto",
    tokens: int,
    tell: Callable[[str], None] | None = None,
) -> Engine:
    """Return an engine for the model in `directory`, for a job of about `tokens` new tokens in all.

    On a CPU, compile auto is on however short the job: compiling takes less time than importing torch, once. `tell` is
    told why it is off. UsageError for a device that is not here or compile on without a compiler, InputError for a
    model that cannot be read.
    """
    on_cpu = device == "cpu" or (device == "auto" and not gpu_may_be_there())
    if on_cpu and compile != "off":
        try:
            native = _native_engine(directory, precision, quantize)
        except NativeUnavailableError as error:
            if compile == "on":
                raise UsageError(str(error), where="--compile", fix="install gcc or clang, or leave it out") from None
            native = None
            if tell is not None:
                tell(f"compile auto is off: {error}")
        if native is not None:
            return native
    return _torch_engine(directory, device, precision, quantize, compile, tokens)


def _native_engine(directory: Path, precision: str, quantize: Weights) -> NativeEngine | None:
    """Return the native engine, None for a model that torch has to read: it knows more layouts, and what is wrong."""
    mapped = map_weights(directory)
    if mapped is None:
        return None
    sizes, weights = mapped
    bf16 = precision == "bf16"
    weight_format: WeightFormat = quantize if quantize != "none" else ("bf16" if bf16 else "fp32")
    return NativeEngine(sizes, weights, weight_format=weight_format, bf16=bf16)


def _torch_engine(
    directory: Path, device: str, precision: str, quantize: Weights, compile: Switch, tokens: int
) -> Engine:
    import torch

    from gptkit.decoding.quantisation import quantise_model
    from gptkit.decoding.torch_engine import TorchEngine
    from gptkit.model.loading import load_model

    place = choose_device(device)
    if quantize == "none":
        dtype = choose_dtype(precision, place)
    else:  # packed products are 13 to 54 times slower in fp32, also on a CPU without bf16
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model = load_model(directory, dtype=torch.float32 if quantize != "none" else dtype)
    model.to(place)  # type: ignore[arg-type]  # its wrapper in transformers loses `self`
    if quantize != "none":
        quantise_model(model, quantize, dtype)
    pays = compile == "on" or (compile == "auto" and tokens >= COMPILE_TOKENS)
    return TorchEngine(model, compile=place.type == "cuda" and pays)
