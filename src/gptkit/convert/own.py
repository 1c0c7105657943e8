"""gptkit's own model directories, and how convert alone reads weights: also from pytorch_model.bin, running no code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gptkit.console import Console
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.loading import State, load_model, read_directory, read_safetensors, save_model, saved_head
from gptkit.model_files.files import PYTORCH_BIN, SAFETENSORS, files_named, row_parts
from gptkit.model_files.shape import model_type
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import described_in

NO_HEAD = None
write, read_back, tensors = save_model, load_model, read_safetensors


def matches(path: Path) -> bool:
    config = described_in(path) / "config.json"
    return config.exists() and model_type(read_json_object(config)) == "gptkit"


def read(path: Path) -> tuple[GPTConfig, State]:
    """Return the model in a directory of config.json and weights: ours, or transformers' gpt2 or openai-gpt."""
    return read_directory(path, saved_head(path), read_weights)


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, _: Console) -> None:
    tokenizer.save_pretrained(folder)


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
            state |= plain_tensors(weights_only(file))
        except Exception:  # pickle, zip and torch raise a dozen kinds for what is damaged or holds more than weights
            message = "not a file that loads as weights only"
            raise InputError(message, where=str(file), fix="copy the file again, or save it as safetensors") from None
    return state


def weights_only(path: Path) -> Any:
    """Return what a pickle holds, without running code; only today's format, a zip, can be mapped."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def plain_tensors(state: Mapping[str, Any]) -> State:
    """Return a state dict; TypeError unless it is names and dense tensors that hold numbers."""
    for name, tensor in state.items():
        is_plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not (isinstance(name, str) and is_plain):
            raise TypeError(f"{name!r} is no tensor")
    return dict(state)
