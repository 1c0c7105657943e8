"""OpenAI's GPT-1: params_*.npy, one flat array split by params_shapes.json; matrices are (1, in, out)."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import torch

from gptkit.convert.formats import Importer
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.loading import State, checked, transposed
from gptkit.system.reading import read_json, require_regular

LAYER = (  # in the order of finetune-transformer-lm's params files, after position and token embeddings
    *("attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias", "ln_1.weight", "ln_1.bias"),
    *("mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias", "ln_2.weight", "ln_2.bias"),
)
HEAD_DIM = 64  # the params files do not contain the number of heads


def matches(path: Path) -> bool:
    return (path / "params_shapes.json").exists()


def read(directory: Path) -> tuple[GPTConfig, State]:
    shapes = _shapes(directory / "params_shapes.json")
    numbers = {file: file.stem.removeprefix("params_") for file in directory.glob("params_[0-9]*.npy")}
    files = sorted((file for file in numbers if numbers[file].isdecimal()), key=lambda file: int(numbers[file]))
    for file in files:
        require_regular(file, "copy it again")
    flat = torch.cat([torch.zeros(0), *(_flat_array(file) for file in files)])
    counts = [math.prod(shape) for shape in shapes]
    if sum(counts) != flat.numel():
        message = f"params files hold {flat.numel():,} numbers, but params_shapes.json needs {sum(counts):,}"
        raise InputError(message, where=str(directory), fix="copy all params_*.npy")
    tensors = [part.view(shape) for part, shape in zip(flat.split(counts), shapes, strict=True)]
    (n_positions, n_embd), (vocab_size, _) = shapes[0], shapes[1]
    if n_embd % HEAD_DIM:
        where = str(directory / "params_shapes.json")
        raise InputError(f"width {n_embd} is not a multiple of {HEAD_DIM}", where=where, fix="use GPT-1's own files")
    sizes: dict[str, Any] = {"vocab_size": vocab_size, "n_positions": n_positions, "n_embd": n_embd}
    config = GPTConfig(**sizes, n_layer=(len(shapes) - 2) // len(LAYER), n_head=n_embd // HEAD_DIM, pre_norm=False)
    names = [f"transformer.h.{layer}.{name}" for layer, name in itertools.product(range(config.n_layer), LAYER)]
    state = dict(zip(["transformer.wpe.weight", "transformer.wte.weight", *names], tensors, strict=True))
    state = {name: transposed(name, tensor[0] if tensor.ndim == 3 else tensor) for name, tensor in state.items()}
    return config, checked(config, state, str(directory))


def _flat_array(file: Path) -> torch.Tensor:
    """Return the numbers in a .npy file; InputError for one that is damaged, or lies about its size."""
    import numpy as np

    try:
        mapped = np.lib.format.open_memmap(file, mode="r")  # np.load would first allocate what the header says
        if mapped.ndim != 1 or mapped.dtype != np.float32:
            raise ValueError(f"an array {mapped.shape} of {mapped.dtype}, not a flat one of float32")
        return torch.from_numpy(np.array(mapped))
    except Exception as error:  # numpy raises what its parsing runs into
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"cannot be read: {reason}", where=str(file), fix="copy it again") from None


def _shapes(path: Path) -> list[list[int]]:
    shapes: Any = read_json(path)
    listed = isinstance(shapes, list) and all(
        isinstance(shape, list) and all(isinstance(size, int) and size > 0 for size in shape) for shape in shapes
    )
    layers, rest = divmod(len(shapes) - 2, len(LAYER)) if listed else (0, 0)
    if layers < 1 or rest or not len(shapes[0]) == len(shapes[1]) == 2:
        fix = "pass OpenAI's model/ directory of finetune-transformer-lm"
        message = "not the shapes of position embeddings, token embeddings and 12 tensors per layer"
        raise InputError(message, where=str(path), fix=fix)
    return list(shapes)


IMPORTER = Importer(matches, read)
