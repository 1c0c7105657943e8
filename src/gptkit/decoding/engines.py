"""From a model's directory to what computes its logits: the native engine on a CPU with a C compiler, else torch."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from gptkit.decoding.sampling import Array
from gptkit.errors import UsageError
from gptkit.options import CompileChoice

if TYPE_CHECKING:  # importing it takes seconds, which the native engine does without
    import torch

    from gptkit.model.modeling_gpt import GPTForCausalLM

Quantize = Literal["none", "int8", "int4"]
COMPILE_TOKENS = 4096  # new tokens for which compiling a GPU's step is thought to pay; unmeasured
GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's driver, AMD's, and either under Windows' Linux
WINDOWS_DRIVERS = ("nvcuda.dll", "amdhip64.dll")


class Piece(NamedTuple):
    """Tokens that follow one another in one row of the cache."""

    row: int
    start: int  # position of the first token; what the row's cache held from there on is overwritten
    token_ids: Sequence[int]  # at least one


class Engine(Protocol):
    """A language model with a cache of keys and values for several rows, each as long as it is filled."""

    n_positions: int
    vocab_size: int
    cache_bytes: int  # that the keys and values of one token take, over all layers
    compile_seconds: float  # 0 when nothing was compiled or a cache had it

    def open(self, rows: int, length: int) -> None:
        """Make room for `rows` empty rows of up to `length` tokens each (at most n_positions)."""

    def forward(self, pieces: Sequence[Piece]) -> Array:
        """Append each piece to its row; return float32 logits (len(pieces), vocab_size) after each one's last token.

        A numpy array, or a torch tensor on the engine's device. At most one piece a row; rows that no piece names keep
        what they hold.
        """


class NativeUnavailableError(Exception):
    """The native engine cannot be had on this machine; the text says why."""


def open_engine(
    directory: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    quantize: Quantize = "none",
    compile: CompileChoice = "auto",
    tokens: int,
    tell: Callable[[str], None] | None = None,
) -> Engine:
    """Return an engine for the model in `directory`, for a job of about `tokens` new tokens in total.

    On a CPU, compile auto is on however short the job: compiling takes less time than importing torch, once. `tell` is
    told why it is off. UsageError for a device that is missing, and for compile on without a compiler, InputError for a
    model that cannot be read.
    """
    on_cpu = device == "cpu" or (device == "auto" and not gpu_may_be_there())
    if on_cpu and compile != "off":
        try:
            engine = _native_engine(directory, precision, quantize)
            if engine is not None:
                return engine
        except NativeUnavailableError as error:
            if compile == "on":
                raise UsageError(str(error), where="--compile", fix="install gcc or clang, or leave it out") from None
            if tell is not None:
                tell(f"compile auto is off: {error}")
    from gptkit.decoding.torch_engine import TorchEngine

    model = torch_model(directory, device, precision, quantize)
    pays = compile == "on" or (compile == "auto" and tokens >= COMPILE_TOKENS)
    return TorchEngine(model, compile=model.device.type == "cuda" and pays)


def native_decoder() -> ModuleType | None:
    """Return the door to the native engine, None where its folder is missing."""
    spec = importlib.util.find_spec("gptkit.decoding.native")
    if spec is None or spec.origin is None:
        return None
    from gptkit.decoding import native

    return native


def _native_engine(directory: Path, precision: str, quantize: Quantize) -> Engine | None:
    """Return the native engine, None for a model that torch has to read: it knows more layouts, and what is wrong."""
    native = native_decoder()
    if native is None:
        raise NativeUnavailableError("this gptkit has no native engine")
    engine: Engine | None = native.open_engine(directory, precision, quantize)
    return engine


def torch_model(directory: Path, device: str, precision: str, quantize: Quantize = "none") -> GPTForCausalLM:
    """Return the model on its device, in eval mode; its linear layers quantised where that is asked for."""
    import torch

    from gptkit.decoding.quantisation import quantise_model
    from gptkit.model.loading import load_model
    from gptkit.system.processor import choose_device

    place = choose_device(device)
    if quantize == "none":
        dtype = choose_dtype(precision, place)
    else:  # packed products are 13 to 54 times slower in fp32, also on a CPU without bf16
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model = load_model(directory, dtype=torch.float32 if quantize != "none" else dtype)
    model.to(place)  # type: ignore[arg-type]  # its wrapper in transformers loses `self`
    if quantize != "none":
        quantise_model(model, quantize, dtype)
    return model


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
