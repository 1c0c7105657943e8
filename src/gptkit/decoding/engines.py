"""The engine that computes a model's logits: native code on a CPU where it can be compiled, else torch."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gptkit.decoding.sampling import Array
from gptkit.decoding.steering import parse_steering, require_unit, steer
from gptkit.decoding.text_options import Precision, TextModelOptions
from gptkit.errors import UsageError
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import described_in
from gptkit.text.tokenizers.any_tokenizer import AnyTokenizer

if TYPE_CHECKING:  # it needs torch, which takes seconds to import; the native engine does without
    from gptkit.model.modeling_gpt import GPTForCausalLM


COMPILE_TOKENS = 4096  # new tokens from which compiling a GPU's step should pay off; not measured
GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's driver, AMD's, and either under WSL
WINDOWS_DRIVERS = ("nvcuda.dll", "amdhip64.dll")


class Piece(NamedTuple):
    """Consecutive tokens of one row of the cache."""

    row: int
    start: int  # position of the first token; the row's cache is overwritten from there on
    token_ids: Sequence[int]  # at least one
    wanted: int = 1  # how many of the last tokens to return logits for


class Engine(Protocol):
    """A language model with a KV cache of several rows, each with a length of its own."""

    n_positions: int
    vocab_size: int
    compile_seconds: float  # 0 if nothing was compiled, or if it was cached

    def open(self, rows: int, length: int) -> None:
        """Make room for `rows` empty rows of up to `length` tokens each (at most n_positions)."""

    def cache_bytes(self, length: int) -> int:
        """Return the bytes of the cache of one such row."""

    def forward(self, pieces: Sequence[Piece]) -> Array:
        """Append each piece to its row; return float32 logits (wanted, vocab_size) after the tokens that want them.

        They are in the order of the pieces. The result is a numpy array, or a torch tensor on the engine's device. At
        most one piece per row; other rows stay as they are.
        """


class ChosenEngine(NamedTuple):
    """An engine that is chosen but not open: what a text depends on is known before any weight is read."""

    precision: Precision  # of activations
    open: Callable[[], Engine]


class NativeUnavailableError(Exception):
    """The native engine is not available on this machine; the message says why, `fix` what to do about it."""

    def __init__(self, message: str, fix: str = "leave it out") -> None:
        super().__init__(message)
        self.fix = fix


def choose_engine(
    directory: Path, options: TextModelOptions, *, tokens: int, say: Callable[[str], None] = lambda line: None
) -> ChosenEngine:
    """Choose an engine for the model in `directory`, to generate about `tokens` new tokens in total.

    On a CPU, `compile` auto compiles even for one token: it takes less time than importing torch, and only once. If it
    cannot, `say` is called with the reason. Raises UsageError for a missing device, and for `compile` on without a
    compiler or with --steer, which runs in torch; opening the engine raises InputError for a model that cannot be read.
    """
    compile = options.compile
    refuse_for_lstm(directory, options)
    if options.steer is not None:
        require_unit(parse_steering(options.steer), directory)
    if options.beams == 1 and on_cpu(options) and compile != "off":
        try:
            native = native_decoder()
            if options.steer is not None:
                raise NativeUnavailableError("--steer holds a unit in torch")
            if native is None:
                raise NativeUnavailableError("this installation has no native engine")
            chosen: ChosenEngine | None = native.choose_engine(directory, options.precision, options.quantize)
            if chosen is not None:  # else torch reads the model: it knows more layouts, and what is wrong
                return chosen
        except NativeUnavailableError as error:
            if compile == "on":
                raise UsageError(str(error), where="--compile", fix=error.fix) from None
            say(f"not compiling (--compile auto): {error}")
    precision = torch_precision(options)

    def open_torch() -> Engine:
        from gptkit.decoding.torch_engine import engine_of

        model = torch_model(directory, options, precision)
        pays = compile == "on" or (compile == "auto" and tokens >= COMPILE_TOKENS)
        return engine_of(model, compile=model.device.type == "cuda" and pays)

    return ChosenEngine(precision, open_torch)


def refuse_for_lstm(directory: Path, options: TextModelOptions) -> None:
    """Raise UsageError for what an LSTM cannot be decoded with, as its config.json says; needs no torch."""
    from gptkit.model_files import LSTM, model_type  # it would slow --help down

    asked = {"--beams": options.beams > 1, "--compile on": options.compile == "on"}
    asked |= {"--quantize": options.quantize != "none", "--steer": options.steer is not None}
    flag = next((flag for flag, is_asked in asked.items() if is_asked), None)
    if flag is not None and model_type(read_json_object(described_in(directory) / "config.json")) == LSTM:
        raise UsageError("the model is an LSTM, which runs in torch as it is", where=flag, fix="leave it out")


def native_decoder() -> ModuleType | None:
    """Return the package of the native engine, None where it is missing."""
    spec = importlib.util.find_spec("gptkit.decoding.native")
    if spec is None or spec.origin is None:
        return None
    from gptkit.decoding import native

    return native


def open_tokenizer(directory: Path) -> AnyTokenizer:
    """Return the tokenizer in a directory (of a run, a model or a tokenizer), where possible without transformers."""
    native = native_decoder()
    if native is not None and (light := native.read_tokenizer(directory)) is not None:
        tokenizer: AnyTokenizer = light
        return tokenizer
    from gptkit.text.tokenizers.loading import tokenizer_in

    return tokenizer_in(directory)


def torch_precision(options: TextModelOptions) -> Precision:
    """Return the precision of activations in torch, importing torch only to ask about a GPU.

    auto is bf16 on a GPU that has it, else fp32: there a row of a product does not depend on the other rows, so a
    sample's text is the same in any batch, which bf16 products do not guarantee. Raises UsageError for a missing device
    and for int8, which only the compiled decoder has.
    """
    if options.precision == "int8":
        message = "int8 activations need the compiled decoder, on a CPU with a C compiler"
        raise UsageError(message, where="--precision int8", fix="leave it out")
    if options.precision != "auto":
        return options.precision
    if options.quantize != "none":  # packed products are 13 to 54 times slower in fp32, also on a CPU without bf16
        return "bf16"
    if on_cpu(options):
        return "fp32"
    import torch

    from gptkit.system.processor import choose_device

    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if choose_device(options.device).type == "cuda" and has_bf16 else "fp32"


def torch_model(directory: Path, options: TextModelOptions, precision: Precision) -> GPTForCausalLM:
    """Return the model on its device, in eval mode, with quantized linear layers if `options.quantize` says so.

    Its unit of `options.steer` is held. Raises UsageError for a missing device, and for bf16 that a CPU would emulate.
    """
    import torch

    from gptkit.decoding.quantization import quantize_model
    from gptkit.model.loading import load_model
    from gptkit.model.model_types import CAUSAL
    from gptkit.system.processor import choose_device, refuse_emulated_bf16

    quantize = options.quantize
    device = choose_device(options.device)
    if quantize == "none":
        refuse_emulated_bf16(device.type, precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = load_model(directory, dtype=dtype if quantize == "none" else torch.float32, types=CAUSAL)
    model.to(device)  # type: ignore[arg-type]  # its wrapper in transformers loses `self`
    if quantize != "none":
        quantize_model(model, quantize, dtype)
    if options.steer is not None:
        steer(model, parse_steering(options.steer))
    return model


def on_cpu(options: TextModelOptions) -> bool:
    """Return whether a CPU certainly computes, without importing torch."""
    return options.device == "cpu" or (options.device == "auto" and not may_have_gpu())


def may_have_gpu() -> bool:
    """Return False if torch would certainly find no GPU, without importing torch."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not torch_built_for_gpu():
        return False
    if sys.platform == "win32":
        system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32"
        return any((system / name).exists() for name in WINDOWS_DRIVERS)
    return any(Path(name).exists() for name in GPU_FILES)


def torch_built_for_gpu() -> bool:
    """Return whether the installed torch was built for CUDA or ROCm, by its version file; True if in doubt."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return True
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return True
    found = re.findall(r"^(?:cuda|hip)\b[^=]*=\s*(.+)$", text, re.MULTILINE)
    return not found or any(value.strip() != "None" for value in found)
