"""gptkit's own model directories; convert also reads weights from pytorch_model.bin, without running its code."""

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
from gptkit.model_files import PYTORCH_BIN, SAFETENSORS, files_named, model_type, row_parts
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import described_in

NO_HEAD = None
write, read_back, tensors = save_model, load_model, read_safetensors


def matches(path: Path) -> bool:
    config = described_in(path) / "config.json"
    return config.exists() and model_type(read_json_object(config)) == "gptkit"


def read(path: Path) -> tuple[GPTConfig, State]:
    """Return the config and weights in a directory of ours, or of transformers' gpt2 or openai-gpt."""
    return read_directory(path, saved_head(path), read_weights)


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, _: Console) -> None:
    tokenizer.save_pretrained(folder)


def read_weights(directory: Path) -> State:
    """Return all tensors in a directory's safetensors, else in pytorch_model.bin or its shards. Runs no code."""
    if files_named(directory, SAFETENSORS) or row_parts(directory):
        return read_safetensors(directory)
    pickled = files_named(directory, PYTORCH_BIN)
    if not pickled and any(directory.glob("pytorch_model-*.bin")):
        message = f"no {PYTORCH_BIN}.index.json, which lists the shards"
        raise InputError(message, where=str(directory), fix="copy the whole directory")
    if not pickled:
        return read_safetensors(directory)  # raises an error that says what is there instead
    state: State = {}
    for file in pickled:
        try:
            state |= plain_tensors(weights_only(file))
        except Exception:  # pickle, zip and torch raise a dozen types for a file that is damaged or not just weights
            message = "not a file that torch.load accepts with weights_only=True"
            raise InputError(message, where=str(file), fix="copy the file again, or save it as safetensors") from None
    return state


def weights_only(path: Path) -> Any:
    """Return what a pickle holds, without running code; memory-mapped if it has the zip format of current torch."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def plain_tensors(state: Mapping[str, Any]) -> State:
    """Return a state dict; TypeError for anything but strings and dense CPU tensors."""
    for name, tensor in state.items():
        is_plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not (isinstance(name, str) and is_plain):
            raise TypeError(f"{name!r} is not a plain tensor")
    return dict(state)
