"""Read a model directory for the native engine: its configuration, and its tensors as memory-mapped numpy arrays.

Imports neither torch nor transformers, and leaves to them what it does not fully understand.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from gptkit.errors import InputError
from gptkit.model_files import (
    MATRIX,
    OWN_KEYS,
    SHARED_KEYS,
    SILENT_KEYS,
    TRANSFORMERS_TYPES,
    GPTShape,
    ids_outside,
    model_type,
    own_name,
    tensor_shapes,
    translated,
    weight_files,
)
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import described_in

Arrays = dict[str, NDArray[Any]]

STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # the bits of bf16, which numpy lacks
CLASSIFIER = "score."
COLUMNS_AT_ONCE = 128

OWN_TYPES: dict[str, Any] = get_type_hints(GPTShape)
# The types of the keys that gpt2 and openai-gpt share with ours.
SHARED_TYPES = {key: hint for key, hint in OWN_TYPES.items() if key != "activation_function"}
SHARED_TYPES |= {"layer_norm_epsilon": float, "initializer_range": float}
_NEEDED = {"vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "layer_norm_epsilon"}


def map_weights(directory: Path) -> tuple[GPTShape, Arrays] | None:
    """Return the language model in a directory: ours, or transformers' gpt2 or openai-gpt.

    Names, shapes and order are those of GPTForCausalLM's state dict: matrices (out, in), uint16 for the bits of bf16.
    No weight is read: arrays are read-only maps of the file, which must not be truncated meanwhile; `usable` makes what
    the engine computes with. A tied LM head is the same array as the embedding.

    None for what is not fully understood: damage, pickles, unknown keys and tensors. `load_model` reads more, and
    says what is wrong.
    """
    try:
        raw = read_json_object(described_in(directory) / "config.json")
        shape = shape_of(raw)
        return None if shape is None else (shape, _checked(shape, _tensors(directory, raw)))
    except (InputError, SafetensorError, OSError, ValueError, KeyError):
        return None


# --- config.json ---


def shape_of(raw: Mapping[str, Any]) -> GPTShape | None:
    """Return the shape described by a config.json: ours, or transformers' gpt2 or openai-gpt.

    None if anything is unknown or unusual: `parse_config` reads more, and says what is wrong.
    """
    try:
        is_own = model_type(raw) == "gptkit"
        shape = _own_shape(raw) if is_own else GPTShape(**_shared_values(raw), **translated(raw, ""))
        shape.validate_sizes()
        shape.validate_rates()
        shape.validate_head()
    except (InputError, KeyError, ValueError, TypeError, OverflowError):
        return None
    return shape


def _own_shape(raw: Mapping[str, Any]) -> GPTShape:
    values = {key: value for key, value in raw.items() if key not in SILENT_KEYS}
    _check_types(values, OWN_TYPES | TRANSFORMERS_TYPES)
    if not all(key.isdecimal() for key in values.get("id2label", {})):
        raise ValueError("labels without numbers")
    shape = GPTShape(**{key: value for key, value in values.items() if key in OWN_KEYS})
    if any(ids_outside(values, shape.vocab_size)):
        raise ValueError("special tokens outside the vocabulary")
    return shape


def _shared_values(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the keys that both share; the keys whose defaults are not known here must be present."""
    is_plain = "auto_map" not in raw and "quantization_config" not in raw
    if model_type(raw) not in ("gpt2", "openai-gpt") or not is_plain or not raw.keys() >= _NEEDED:
        raise ValueError("not a plain model")
    _check_types({key: value for key, value in raw.items() if key in SHARED_TYPES}, SHARED_TYPES)
    return {key: value for key, value in raw.items() if key in SHARED_KEYS}


def _check_types(values: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if not _fits(value, types[key]):
            raise ValueError(f"{key} has the wrong type")


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a JSON value has a type; true and false are not numbers, and 1 is not a float."""
    kind, arguments = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if kind is Literal:
        return value in arguments
    if kind is list:
        return type(value) is list and all(_fits(item, arguments[0]) for item in value)
    if kind is dict:
        return type(value) is dict and all(_fits(item, arguments[1]) for item in value.values())
    return type(value) is hint


# --- tensors ---


def _tensors(directory: Path, raw: Mapping[str, Any]) -> Arrays:
    """Return views of all tensors by our names, matrices as (out, in); ValueError if two have the same name."""
    is_own = model_type(raw) == "gptkit"
    tensors: Arrays = {}
    for file in weight_files(directory):
        data, start, header = _mapped(file)
        for stored_name, entry in header.items():
            name = stored_name if is_own else own_name(stored_name)
            if name is None or (raw.get("format") and name.startswith(CLASSIFIER)):
                continue
            if name in tensors:
                raise ValueError("a tensor appears twice")
            dtype, sizes = STORED[entry["dtype"]], entry["shape"]
            array = np.frombuffer(data, dtype, math.prod(sizes), start + entry["data_offsets"][0]).reshape(sizes)
            is_transposed = not is_own and MATRIX.search(name)
            tensors[name] = np.matrix_transpose(array) if is_transposed else array
    return tensors


def _mapped(file: Path) -> tuple[mmap.mmap, int, dict[str, Any]]:
    """Return a safetensors file as a memory map, the offset of its data, and its header (8 bytes of length, JSON)."""
    with safe_open(file, framework="numpy"):
        pass  # this checks that the header's tensors fill the file exactly
    with open(file, "rb") as handle:
        data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return data, start, header


def usable(arrays: Arrays) -> Arrays:
    """Return arrays to compute with, copies of those of fp16 or (in, out); tied weights stay one array."""
    made = {id(array): _usable(array) for array in arrays.values()}
    return {name: made[id(array)] for name, array in arrays.items()}


def _usable(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array to compute with: contiguous, aligned, and not fp16."""
    if array.dtype == np.float16:
        return array.astype(np.float32, order="C")
    if array.flags.c_contiguous:
        return array if array.flags.aligned else array.copy()
    copy = np.empty(array.shape, array.dtype)
    for column in range(0, array.shape[1], COLUMNS_AT_ONCE):  # three times as fast as copying all at once
        copy[:, column : column + COLUMNS_AT_ONCE] = array[:, column : column + COLUMNS_AT_ONCE]
    return copy


def _checked(shape: GPTShape, found: Arrays) -> Arrays:
    """Return the tensors in the state dict's order; ValueError if they are not exactly those of the shape."""
    if shape.tie_word_embeddings and "transformer.wte.weight" in found:
        found = {**found, "lm_head.weight": found["transformer.wte.weight"]}
    shapes = tensor_shapes(shape, found, "")
    if shapes != {name: array.shape for name, array in found.items()}:
        raise ValueError("not the tensors of this shape")
    return {name: found[name] for name in shapes}
