"""Compile the C code of the native engine once for this machine, cache the library, and load it with ctypes.

It needs only a C compiler (no Python or torch headers). Compiling takes about a second; later starts use the cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

from gptkit.decoding.engines import NativeUnavailableError
from gptkit.errors import GptkitError
from gptkit.system.cache import cache_path, cached_file
from gptkit.system.files import HashedFile

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "gpt.c"  # includes the headers
# A row's logits are the same in any batch: no -ffast-math, for sums keep their order, and all sums of products are
# fused; left to itself, GCC fuses some loops on AMD's processors and not others.
FUSED = ("-ffp-contract=fast", "--param=avoid-fma-max-bits=0")
FLAGS = ("-O2", *FUSED, "-fno-math-errno", "-shared", "-fPIC", "-std=gnu11")
NATIVE_FLAGS = {"arm64": "-mcpu=native", "aarch64": "-mcpu=native"}
SPINS = "1000"  # about ten microseconds
FORMATS = {"fp32": 0, "bf16": 1, "int8": 2, "int4": 3}
PRECISIONS = {"fp32": 0, "bf16": 1, "int8": 2}  # of activations


def fields(kind: Any, *names: str) -> list[tuple[str, Any]]:
    """Return the `_fields_` entries of a struct for fields of one type."""
    return [(name, kind) for name in names]


class Matrix(ctypes.Structure):
    _fields_ = fields(c_int32, "format", "outputs", "inputs") + fields(c_void_p, "weights", "scales", "bias")


class Layer(ctypes.Structure):
    _fields_ = [
        *fields(Matrix, "attention", "attention_out", "mlp", "mlp_out"),
        *fields(c_void_p, "norm_1", "norm_1_bias", "norm_2", "norm_2_bias"),
    ]


class Model(ctypes.Structure):
    _fields_ = [
        *fields(c_int32, "n_layer", "n_head", "n_embd", "n_inner", "vocab_size"),
        *fields(c_int32, "pre_norm", "activation", "precision", "threads"),
        ("epsilon", c_float),
        *fields(Matrix, "tokens", "positions", "head"),
        ("layers", POINTER(Layer)),
        *fields(c_void_p, "norm", "norm_bias"),
    ]


class Cache(ctypes.Structure):
    _fields_ = fields(c_int32, "rows", "capacity") + fields(c_void_p, "keys", "values", "key_scales", "value_scales")


class CPiece(ctypes.Structure):
    _fields_ = fields(c_int32, "row", "start", "length", "wanted")


class Buffers(ctypes.Structure):
    _fields_ = [
        *fields(c_void_p, "hidden", "normed", "attention", "attended", "inner"),
        *fields(c_void_p, "codes", "scales", "minus", "offsets", "tiles", "scratch"),
        ("scratch_size", c_int64),
    ]


SIGNATURES: dict[str, tuple[Any, ...]] = {  # the result's type, then the arguments'
    "gpt_forward": (None, *map(POINTER, (Model, Cache, Buffers, CPiece)), c_int32, c_void_p, c_void_p),
    "gpt_scratch_size": (c_int64, POINTER(Model), c_int64),
    "gpt_to_bf16": (None, c_void_p, c_int64, c_void_p, c_int32),
    "gpt_to_int8": (None, c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_int32, c_int32),
    "gpt_to_int4": (None, c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_int32, c_int32),
}


def native_library(weight_format: str, precision: str) -> tuple[ctypes.CDLL, float]:
    """Return the library for these weights and activations, and the seconds it took to compile, 0 if it was cached.

    Without a usable cache it is compiled for this process only. Raises NativeUnavailableError without a C compiler, or
    if the compiler or the loader fails.
    """
    compiler = find_c_compiler()
    if compiler is None:
        fix = "leave it out, or install gcc or clang"
        raise NativeUnavailableError("no C compiler was found (cc, gcc or clang)", fix)
    flags = [*FLAGS, f"-DFORMAT={FORMATS[weight_format]}", f"-DPRECISION={PRECISIONS[precision]}"]
    seconds = 0.0

    def write(file: HashedFile) -> dict[str, Any]:
        nonlocal seconds
        with _compiled(compiler, flags) as (library, seconds):
            file.write(library.read_bytes())
        return {"compiler": compiler}

    # The name depends on all that determines the library: source, flags, compiler and processor.
    stat = os.stat(os.path.realpath(compiler[0]))
    sources = [source.read_text(encoding="utf-8") for source in sorted(FOLDER.glob("*.[ch]"))]
    path = cache_path("native", ".so", sources, flags, compiler, stat.st_size, int(stat.st_mtime), _processor())
    try:
        cached_file(path, write, need=lambda file: file.size)
        return _load(path), seconds
    except GptkitError:
        with _compiled(compiler, flags) as (library, seconds):
            return _load(library), seconds


def _load(path: Path) -> ctypes.CDLL:
    try:
        with _short_waits():
            library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeUnavailableError(f"the compiled library cannot be loaded: {error}") from None
    for name, (result, *arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@contextlib.contextmanager
def _short_waits() -> Iterator[None]:
    """Have GNU's OpenMP, which reads this once, sleep soon at a barrier: spinning would take turns from busy neighbors.

    A user's own setting counts.
    """
    name = "GOMP_SPINCOUNT"
    if name in os.environ or "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ[name] = SPINS
    try:
        yield
    finally:
        del os.environ[name]


def find_c_compiler() -> list[str] | None:
    """Return the command of the C compiler: CC, else the first of cc, gcc and clang on the PATH."""
    try:
        chosen = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise NativeUnavailableError(f"the environment variable CC cannot be parsed: {error}") from None
    candidates = [chosen] if chosen else [["cc"], ["gcc"], ["clang"]]
    for command in candidates:
        if path := shutil.which(command[0]):
            return [path, *command[1:]]
    return None


def _processor() -> list[str]:
    """Return what distinguishes processors with different instructions; machines may share a cache directory."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return [platform.machine(), platform.processor()]
    return [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]


@contextlib.contextmanager
def _compiled(compiler: list[str], flags: list[str]) -> Iterator[tuple[Path, float]]:
    """Yield the compiled library, a temporary file, and the seconds it took; with OpenMP if the compiler has it."""
    began = time.perf_counter()
    # CC may name the processor to compile for; flags such as -mno-avx2 work beside ours.
    has_target = any(flag.startswith(("-march=", "-mcpu=")) for flag in compiler)
    native = [] if has_target else [NATIVE_FLAGS.get(platform.machine(), "-march=native")]
    try:
        folder = tempfile.TemporaryDirectory(prefix="gptkit-", ignore_cleanup_errors=True)
    except OSError as error:
        raise NativeUnavailableError(f"no temporary directory to compile in: {error}") from None
    with folder:
        output = Path(folder.name) / "gpt.so"
        for openmp in (["-fopenmp"], []):
            command = [*compiler, *flags, *native, *openmp, str(SOURCE), "-o", str(output), "-lm"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise NativeUnavailableError(f"{compiler[0]} cannot be run: {error}") from None
            if done.returncode == 0 and output.exists():
                yield output, time.perf_counter() - began
                return
        reasons = [line for line in done.stderr.splitlines() if "error" in line]
        reason = reasons[0] if reasons else f"it wrote nothing (exit {done.returncode})"
        raise NativeUnavailableError(f"{compiler[0]} cannot compile the decoder: {reason}")
