"""Weights from and to other formats, as (GPTConfig, state dict of GPTForCausalLM or of a fine-tuned model).

    transformers gpt2, openai-gpt   safetensors     matrices (in, out), as Conv1D keeps them
                                    pytorch_model.bin   the same; read by convert alone
    gptkit                          safetensors     matrices (out, in), as nn.Linear keeps them
    nanoGPT                         ckpt.pt         matrices (out, in)
    OpenAI's GPT-1                  params_*.npy    matrices (1, in, out)

Names are mapped by the functions below: `from_pretrained(key_mapping=...)` would be reversed when the model is saved.
"""

from __future__ import annotations

import itertools
import math
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPT2LMHeadModel, OpenAIGPTLMHeadModel, PreTrainedModel

from gptkit.errors import InputError, suggest
from gptkit.model.config_files import hf_config, parse_config, read_config
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTPreTrainedModel
from gptkit.model.quiet import quiet_transformers
from gptkit.model_files.files import (
    BUFFER,
    EMBEDDINGS,
    LAYER,
    MATRIX,
    PYTORCH_BIN,
    SAFETENSORS,
    files_named,
    not_finite,
    own_name,
    row_parts,
    weight_files,
)
from gptkit.model_files.shape import model_type
from gptkit.system.json_files import read_json, read_json_object
from gptkit.system.reading import require_regular
from gptkit.system.run_layout import described_in

State = dict[str, Tensor]
Head = type[GPTPreTrainedModel]

NANOGPT_ARGS = frozenset({"n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout"})
OPENAI_LAYER = (  # the order of finetune-transformer-lm's params files, after positions and tokens
    "attn.c_attn.weight",
    "attn.c_attn.bias",
    "attn.c_proj.weight",
    "attn.c_proj.bias",
    "ln_1.weight",
    "ln_1.bias",
    "mlp.c_fc.weight",
    "mlp.c_fc.bias",
    "mlp.c_proj.weight",
    "mlp.c_proj.bias",
    "ln_2.weight",
    "ln_2.bias",
)
MISFIT_FIX = "the weights do not belong to this config"
OPENAI_HEAD_DIM = 64  # the params files do not say how many heads there are


def read_source(path: str | Path) -> tuple[GPTConfig, State]:
    """Return the model in any format that convert reads; InputError for anything else. No code is run."""
    path = Path(path)
    if path.is_dir() and (described_in(path) / "config.json").exists():
        return read_directory(path, saved_head(path), read_weights)
    if path.is_dir() and (path / "params_shapes.json").exists():
        return _read_openai_params(path)
    if path.is_dir() and (path / "ckpt.pt").exists():
        return _read_nanogpt(path / "ckpt.pt")
    if path.is_file() and path.suffix == ".pt":
        return _read_nanogpt(path)
    fix = (
        "convert reads config.json with safetensors or pytorch_model.bin, nanoGPT's ckpt.pt, and OpenAI's params_*.npy"
    )
    raise InputError("no model here" if path.exists() else "no such file or directory", where=str(path), fix=fix)


def saved_head(directory: Path) -> Head:
    """Return the class of the model that a directory holds, as its config.json says."""
    config = read_config(described_in(directory) / "config.json")
    is_tuned = config.format is not None and GPTDoubleHeadsModel.__name__ in (config.architectures or [])
    return GPTDoubleHeadsModel if is_tuned else GPTForCausalLM


def read_directory(
    directory: Path, head: Head = GPTForCausalLM, read: Callable[[Path], State] | None = None
) -> tuple[GPTConfig, State]:
    """Return the model in a directory of config.json and weights: ours, or transformers' gpt2 or openai-gpt.

    `read` returns the tensors, by default from safetensors alone. All tensors are those of `head`; for a
    GPTForCausalLM, a fine-tuned model's classifier and task are left out.
    """
    description = described_in(directory) / "config.json"
    raw = read_json_object(description)
    config = parse_config(raw, str(description))
    if head is GPTDoubleHeadsModel and saved_head(directory) is not head:
        fix = f"fine-tune it first: gptkit finetune --model {directory} --task ..."
        raise InputError("this model was not fine-tuned on a task", where=str(directory), fix=fix)
    state = (read or read_safetensors)(directory)
    if model_type(raw) != "gptkit":
        state = _from_hf(state)
    if head is GPTForCausalLM and config.format is not None:
        config = config.without_head()
        state = {name: tensor for name, tensor in state.items() if not name.startswith("score.")}
    return config, _copied(_checked(config, state, str(directory), head))


def _copied(state: State) -> State:
    """Return tensors that no longer hang on their file: mapped ones would die with it if it were cut short."""
    copies = {id(tensor): tensor.clone(memory_format=torch.contiguous_format) for tensor in state.values()}
    return {name: copies[id(tensor)] for name, tensor in state.items()}


# --- safetensors ---


def read_safetensors(directory: Path) -> State:
    """Return all tensors of model.safetensors or of its shards, mapped: nothing of them is read yet.

    The rows that several processes wrote of a checkpoint are put together. InputError for pickles, for they can run
    code.
    """
    found: list[State] = []
    for file in weight_files(directory):
        try:
            found.append(load_file(file))
        except SafetensorError as error:
            raise InputError(f"damaged: {error}", where=str(file), fix="copy the file again") from None
        except OSError as error:
            reason = error.strerror or "no such file"
            raise InputError(f"cannot be read: {reason}", where=str(file), fix="copy the whole directory") from None
        except RuntimeError:  # torch's word for what the system will not map
            size = file.stat().st_size
            message = f"its {size:,} bytes do not fit into memory"
            raise InputError(message, where=str(file), fix="free memory, or copy the file again") from None
    if row_parts(directory):
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}
    return {name: tensor for state in found for name, tensor in state.items()}


# --- pickles, as weights only ---


def read_weights(directory: Path) -> State:
    """Return all tensors of a directory's safetensors, else of pytorch_model.bin or its shards. No code is run."""
    if files_named(directory, SAFETENSORS) or row_parts(directory):
        return read_safetensors(directory)
    pickled = files_named(directory, PYTORCH_BIN)
    if not pickled and any(directory.glob("pytorch_model-*.bin")):
        message = f"no {PYTORCH_BIN}.index.json, which lists the shards"
        raise InputError(message, where=str(directory), fix="copy the whole directory")
    if not pickled:
        return read_safetensors(directory)  # says what is there instead
    state: State = {}
    for file in pickled:
        try:
            state |= _plain_tensors(_weights_only(file))
        except Exception:  # pickle, zip and torch raise a dozen kinds for what is damaged or holds more than weights
            message = "not a file that loads as weights only"
            raise InputError(message, where=str(file), fix="copy the file again, or save it as safetensors") from None
    return state


def _weights_only(path: Path) -> Any:
    # Only today's format, a zip, can be mapped.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _plain_tensors(state: Mapping[str, Any]) -> State:
    """Return a state dict; TypeError unless it is names and dense tensors that hold numbers."""
    for name, tensor in state.items():
        is_plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not (isinstance(name, str) and is_plain):
            raise TypeError(f"{name!r} is no tensor")
    return dict(state)


def _checked(config: GPTConfig, state: State, where: str, head: Head = GPTForCausalLM) -> State:
    """Return `state` with the tied head's weight; InputError for one that is missing, too many or damaged."""
    if config.tie_word_embeddings and "transformer.wte.weight" in state:
        state = {**state, "lm_head.weight": state["transformer.wte.weight"]}
    _refuse_other_sizes(config, state, where)
    expected = _shapes(config, head)
    _refuse_misfits(expected, state, where)
    for name in state.keys() - expected.keys():
        raise InputError(f"tensor {name} has no place in {head.__name__}", where=where, fix=MISFIT_FIX)
    _refuse_not_finite(state, where)
    return state


def _refuse_not_finite(state: State, where: str) -> None:
    """Raise InputError naming the tensor: not every path from weights to a result would show what they hold."""
    for name, tensor in state.items():
        numbers = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # fp8 has few operations
        if not all(bool(extreme.isfinite()) for extreme in numbers.aminmax()):  # it needs no memory, NaN is both
            raise not_finite(f"tensor {name} is", where)


def _refuse_other_sizes(config: GPTConfig, state: State, where: str) -> None:
    """Compare every size with a tensor that has it: a model of absurd sizes could not even be built to be compared."""
    layers = len({match[1] for name in state if (match := LAYER.match(name))})
    if layers != config.n_layer:
        message = f"n_layer is {config.n_layer:,}, the file has {layers:,} layers"
        raise InputError(message, where=where, fix=MISFIT_FIX)
    sizes = {
        "transformer.wte.weight": (config.vocab_size, config.n_embd),
        "transformer.wpe.weight": (config.n_positions, config.n_embd),
        "transformer.h.0.mlp.c_fc.weight": (config.n_inner or 4 * config.n_embd, config.n_embd),
    }
    _refuse_misfits(sizes, state, where)


def _refuse_misfits(expected: Mapping[str, tuple[int, ...]], state: State, where: str) -> None:
    for name, shape in expected.items():
        if name not in state:
            raise InputError(f"tensor {name} is missing", where=where, fix=MISFIT_FIX)
        if state[name].shape != shape:
            message = f"tensor {name} has shape {tuple(state[name].shape)}, not {tuple(shape)}"
            raise InputError(message, where=where, fix=MISFIT_FIX)
        if not state[name].is_floating_point():
            message = f"tensor {name} holds {str(state[name].dtype).removeprefix('torch.')}, no floating-point weights"
            raise InputError(message, where=where, fix="give the model before its quantisation")


def _shapes(config: GPTConfig, head: Head = GPTForCausalLM) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in head(config).state_dict().items()}


# --- transformers ---


def _from_hf(theirs: State) -> State:
    """Return our state dict from gpt2's or openai-gpt's, saved with or without the `transformer.` prefix."""
    state: State = {}
    for name, tensor in theirs.items():
        if own := own_name(name):
            state[own] = tensor.t() if MATRIX.search(own) and tensor.ndim == 2 else tensor
    return state


def to_hf(config: GPTConfig, state: State) -> State:
    """Return gpt2's or openai-gpt's state dict from ours."""
    theirs: State = {}
    for name, tensor in state.items():
        if not config.pre_norm:
            for foreign, own in EMBEDDINGS.items():
                name = name.replace(own, foreign)
        theirs[name] = _transposed(name, tensor)
    return theirs


def _transposed(name: str, tensor: Tensor) -> Tensor:
    """Return a matrix with its inputs and outputs exchanged, and anything else as it is."""
    return tensor.t().contiguous() if MATRIX.search(name) and tensor.ndim == 2 else tensor


def write_hf(model: GPTForCausalLM, directory: str | Path) -> None:
    """Write a directory that plain transformers loads: GPT2LMHeadModel, or OpenAIGPTLMHeadModel for GPT-1.

    The weights keep their dtype and their bits. Raises InputError for what that class cannot express.
    """
    theirs = GPT2LMHeadModel if model.config.pre_norm else OpenAIGPTLMHeadModel
    config = hf_config(model.config)
    state = to_hf(model.config, model.state_dict())
    with quiet_transformers():
        exported = theirs.from_pretrained(None, config=config, state_dict=state, dtype=model.dtype)
    _save(exported, Path(directory))


def write_gptkit(model: GPTPreTrainedModel, directory: str | Path) -> None:
    """Write a directory that `load_model` and, after `import gptkit.model`, AutoModelForCausalLM load."""
    _save(model, Path(directory))


def _save(model: PreTrainedModel, directory: Path) -> None:
    with quiet_transformers():
        model.save_pretrained(directory)
    for weights in directory.glob("*.safetensors"):  # which safetensors makes for their owner alone
        shutil.copymode(directory / "config.json", weights)


# --- nanoGPT ---


def _read_nanogpt(path: Path) -> tuple[GPTConfig, State]:
    require_regular(path, "copy the file again")
    try:
        checkpoint = _weights_only(path)
        arguments = dict(checkpoint["model_args"])
        theirs = {name: tensor.clone() for name, tensor in _plain_tensors(checkpoint["model"]).items()}
        if not all(isinstance(name, str) for name in arguments):
            raise TypeError("a name that is none")
    except Exception:  # pickle, zip and torch raise a dozen kinds for a file that is damaged or holds more than weights
        message = "not a nanoGPT checkpoint that loads as weights only"
        raise InputError(message, where=str(path), fix="give the ckpt.pt that nanoGPT's train.py wrote") from None
    config = _nanogpt_config(arguments, str(path))
    state = {name.removeprefix("_orig_mod."): tensor for name, tensor in theirs.items()}  # torch.compile's prefix
    state = {name: tensor for name, tensor in state.items() if not BUFFER.search(name)}
    if arguments.get("bias") is False:
        _refuse_other_sizes(config, state, str(path))
        state = {name: torch.zeros(shape) for name, shape in _shapes(config).items() if name.endswith(".bias")} | state
    return config, _checked(config, state, str(path))


def _nanogpt_config(arguments: dict[str, Any], where: str) -> GPTConfig:
    for name in arguments:
        if name not in NANOGPT_ARGS:
            message = f"model_args has {name!r}, which nanoGPT does not know"
            raise InputError(message, where=where, fix=suggest(name, NANOGPT_ARGS))
    dropout = arguments.get("dropout", 0.0)
    sizes = {name: arguments[name] for name in ("vocab_size", "n_layer", "n_head", "n_embd") if name in arguments}
    raw = {
        **sizes,
        "n_positions": arguments.get("block_size", 1024),
        "activation_function": "gelu",  # nanoGPT's nn.GELU() is the erf form
        "position_initializer_range": 0.02,
        **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout),
    }
    return parse_config(raw, where)


# --- OpenAI's GPT-1 ---


def _read_openai_params(directory: Path) -> tuple[GPTConfig, State]:
    import numpy as np

    shapes = _openai_shapes(directory / "params_shapes.json")
    numbers = {file: file.stem.removeprefix("params_") for file in directory.glob("params_[0-9]*.npy")}
    files = sorted((file for file in numbers if numbers[file].isdecimal()), key=lambda file: int(numbers[file]))
    for file in files:
        require_regular(file, "copy it again")
    try:
        parts = [np.load(file, allow_pickle=False) for file in files]
        flat = torch.from_numpy(np.concatenate(parts, dtype=np.float32))
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"params files cannot be read: {error}", where=str(directory), fix="copy them again") from None
    sizes = [math.prod(shape) for shape in shapes]
    if sum(sizes) != flat.numel():
        message = f"params files hold {flat.numel():,} numbers, params_shapes.json wants {sum(sizes):,}"
        raise InputError(message, where=str(directory), fix="copy all params_*.npy")
    tensors = [part.clone().view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
    config = _openai_config(shapes, str(directory / "params_shapes.json"))
    names = [f"transformer.h.{layer}.{name}" for layer, name in itertools.product(range(config.n_layer), OPENAI_LAYER)]
    state = dict(zip(["transformer.wpe.weight", "transformer.wte.weight", *names], tensors, strict=True))
    state = {name: _transposed(name, tensor[0] if tensor.ndim == 3 else tensor) for name, tensor in state.items()}
    return config, _checked(config, state, str(directory))


def _openai_shapes(path: Path) -> list[list[int]]:
    shapes: Any = read_json(path)
    listed = isinstance(shapes, list) and all(
        isinstance(shape, list) and all(isinstance(size, int) and size > 0 for size in shape) for shape in shapes
    )
    layers, rest = divmod(len(shapes) - 2, len(OPENAI_LAYER)) if listed else (0, 0)
    if layers < 1 or rest or not len(shapes[0]) == len(shapes[1]) == 2:
        fix = "give OpenAI's model/ directory of finetune-transformer-lm"
        raise InputError("not the shapes of positions, tokens and 12 tensors a layer", where=str(path), fix=fix)
    return list(shapes)


def _openai_config(shapes: list[list[int]], where: str) -> GPTConfig:
    (n_positions, n_embd), (vocab_size, _) = shapes[0], shapes[1]
    if n_embd % OPENAI_HEAD_DIM:
        raise InputError(f"width {n_embd} is no multiple of {OPENAI_HEAD_DIM}", where=where, fix="it is not GPT-1's")
    return GPTConfig(
        vocab_size=vocab_size,
        n_positions=n_positions,
        n_embd=n_embd,
        n_layer=(len(shapes) - 2) // len(OPENAI_LAYER),
        n_head=n_embd // OPENAI_HEAD_DIM,
        pre_norm=False,
    )
