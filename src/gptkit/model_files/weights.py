"""The weights in a model directory as numpy arrays that the file is mapped into, without torch."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from gptkit.errors import InputError
from gptkit.model_files.config_json import model_type, sizes_of
from gptkit.model_files.sizes import Sizes
from gptkit.model_files.tensor_names import LAYER, MATRIX, own_name, tensor_shapes
from gptkit.system.json_files import read_json_object
from gptkit.system.reading import require_regular
from gptkit.system.run_layout import WEIGHTS, described_in, is_committed

Arrays = dict[str, NDArray[Any]]

SAFETENSORS, PYTORCH_BIN = "model.safetensors", "pytorch_model.bin"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # numpy has no bf16: its bits
CLASSIFIER = "score."
ROWS_AT_ONCE = 128
LARGEST_HEADER = 1_000_000  # bytes; a model of a thousand tensors has a hundred thousand

Rename = Callable[[str], str | None]  # None for what is not the language model's


def not_finite(what: str, where: str = "--model") -> InputError:
    """Return the error for weights, or what was computed from them, that hold NaN or infinity."""
    fix = "the weights are damaged, or training diverged: use another model"
    return InputError(f"{what} not finite", where=where, fix=fix)


def map_weights(directory: Path) -> tuple[Sizes, Arrays] | None:
    """Return the language model in a directory of ours or of transformers' gpt2 or openai-gpt.

    Names, shapes and order are those of GPTForCausalLM's state dict, matrices (out, in), values float32, or uint16
    where the file has bf16: its bits. Arrays are read-only maps of the file, which must not be cut short meanwhile;
    copies where it holds fp16 or matrices (in, out). A tied LM head is the very array of the embedding.

    None for what is not fully understood: damage, pickles, unknown keys and tensors. `load_model` reads more, and
    says what is wrong.
    """
    try:
        raw = read_json_object(described_in(directory) / "config.json")
        sizes = sizes_of(raw)
        return None if sizes is None else (sizes, _checked(sizes, _tensors(directory, raw)))
    except (InputError, SafetensorError, OSError, ValueError):
        return None


def model_files(directory: Path) -> list[Path]:
    """Return config.json and the weights: nothing else in a directory is the model, whatever it is called."""
    config = described_in(directory) / "config.json"
    require_regular(config, "copy the whole directory")
    return [config, *weight_files(directory)]


def weight_files(directory: Path) -> list[Path]:
    """Return model.safetensors, its shards or its parts; InputError without any, and for pickles: they can run code."""
    files = files_named(directory, SAFETENSORS) or row_parts(directory)
    for file in files:
        _refuse_large_header(file)
    if files:
        return files
    pickles = sorted(file.name for pattern in PICKLES for file in directory.glob(pattern))
    if pickles:
        message = f"{pickles[0]} is a pickle, which can run code; gptkit loads safetensors only"
        raise InputError(message, where=str(directory), fix="save the model as safetensors (save_pretrained does)")
    raise InputError("no model.safetensors here", where=str(directory), fix="give a directory that holds a saved model")


def files_named(directory: Path, name: str) -> list[Path]:
    """Return the file of that name, or the shards that its index lists; empty without either, all regular files."""
    files = [directory / name] if (directory / name).exists() else _shards(directory / f"{name}.index.json")
    for file in files:
        require_regular(file, "copy the whole directory")
    return files


def _shards(index: Path) -> list[Path]:
    if not index.exists():
        return []
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    shards = read_json_object(index).get("weight_map")
    if not shards or not isinstance(shards, dict):
        raise InputError("no weight_map that names its shards", where=str(index), fix="copy the whole directory")
    names = sorted({str(name) for name in shards.values()})
    for name in names:
        if Path(name).name != name or "\\" in name or not name.endswith(suffix):
            raise InputError(f"{name!r} is no {suffix[1:]} file of this directory", where=str(index), fix="mend it")
    return [index.parent / name for name in names]


def _refuse_large_header(file: Path) -> None:
    """Refuse a header that would fill the memory before it is understood."""
    with open(file, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
    if length > LARGEST_HEADER:
        message = f"damaged: a header of {length:,} bytes"
        raise InputError(message, where=str(file), fix="copy the file again")


def row_parts(directory: Path) -> list[Path]:
    """Return the weight files of a checkpoint that several processes wrote, each some rows of every tensor, in order.

    None in any other directory.
    """
    found = directory.glob(f"{WEIGHTS}-*-of-*.safetensors") if is_committed(directory) else ()
    return sorted(file for file in found if file.is_file())


def _tensors(directory: Path, raw: Mapping[str, Any]) -> Arrays:
    """Return views of all tensors by our names, matrices (out, in); ValueError when two have the same name."""
    is_own = model_type(raw) == "gptkit"
    rename = own_name if not is_own else _without_classifier if raw.get("format") else str
    found = [pair for file in weight_files(directory) for pair in _mapped(file, rename)]
    tensors = dict(found)
    if len(tensors) < len(found):
        raise ValueError("a tensor twice")
    if is_own:
        return tensors
    return {name: _turned(array) if MATRIX.search(name) else array for name, array in tensors.items()}


def _turned(matrix: NDArray[Any]) -> NDArray[Any]:
    if matrix.ndim != 2:
        raise ValueError("not a matrix")
    return matrix.T


def _usable(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view as it can be computed with: in its own order, aligned, and no fp16."""
    if array.dtype == np.float16:
        return array.astype(np.float32, order="C")
    if not array.flags.c_contiguous:
        return _transposed(array.T)
    return array if array.flags.aligned else array.copy()


def _transposed(matrix: NDArray[Any]) -> NDArray[Any]:
    """Return a copy (out, in) of a matrix (in, out), some rows at a time: three times as fast."""
    copy = np.empty(matrix.shape[::-1], matrix.dtype)
    for row in range(0, len(matrix), ROWS_AT_ONCE):
        copy[:, row : row + ROWS_AT_ONCE] = matrix[row : row + ROWS_AT_ONCE].T
    return copy


def _without_classifier(name: str) -> str | None:
    return None if name.startswith(CLASSIFIER) else name


def _mapped(file: Path, rename: Rename) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield a file's tensors as maps of it: 8 bytes with the length of a JSON header, the header, the data."""
    with safe_open(file, framework="numpy"):
        pass  # it checks that the header's tensors fill the file exactly
    with open(file, "rb") as handle:
        data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if own := rename(name):
            yield own, _array(data, start, entry)


def _array(data: mmap.mmap, start: int, entry: dict[str, Any]) -> NDArray[Any]:
    dtype, shape = STORED.get(entry["dtype"]), entry["shape"]
    if dtype is None:
        raise ValueError("another type")
    array: NDArray[Any] = np.frombuffer(data, dtype, math.prod(shape), start + entry["data_offsets"][0]).reshape(shape)
    return array


def _checked(sizes: Sizes, found: Arrays) -> Arrays:
    """Return the tensors in the state dict's order if they are just those that the sizes ask for."""
    layers = {match[1] for name in found if (match := LAYER.match(name))}
    if len(layers) != sizes.n_layer:  # before as many as the config says are listed
        raise ValueError("not the tensors of these sizes")
    if sizes.tie_word_embeddings and "transformer.wte.weight" in found:
        found = {**found, "lm_head.weight": found["transformer.wte.weight"]}
    shapes = tensor_shapes(sizes)
    if shapes != {name: array.shape for name, array in found.items()}:
        raise ValueError("not the tensors of these sizes")
    usable = {id(found[name]): _usable(found[name]) for name in shapes}  # tied ones stay one
    return {name: usable[id(found[name])] for name in shapes}
