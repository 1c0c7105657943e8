"""From what `--model` names to a configuration or a model: presets, config.json files, directories, hf:NAME."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar, overload

import torch

from gptkit.errors import InputError, UsageError, suggest
from gptkit.model.config_files import parse_config
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.interop import State, read_directory, read_source
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTPreTrainedModel
from gptkit.model.quiet import quiet_transformers
from gptkit.model_files.files import (
    model_directory,
    model_presets,
    refuse_other_formats,
    source_directory,
    weight_files,
)
from gptkit.system.json_files import read_json_object

Model = TypeVar("Model", bound=GPTPreTrainedModel)


def config_from(model: str, *, vocab_size: int) -> GPTConfig:
    """Return the configuration of a preset or of a config.json, for a tokenizer of `vocab_size` entries.

    A preset takes the tokenizer's size, and so does a file that gives none. A file's own stands, and must not be
    smaller: InputError, as for an unknown key. UsageError when `model` names neither.
    """
    presets = model_presets()
    path = presets.get(model, Path(model))
    if not path.is_file():
        message = f"{model!r} is neither a preset nor a config.json"
        raise UsageError(message, where="--model", fix=suggest(model, presets))
    refuse_other_formats(path)
    raw = read_json_object(path)
    if model in presets or "vocab_size" not in raw:
        raw["vocab_size"] = vocab_size
    config = parse_config(raw, str(path))
    if config.vocab_size < vocab_size:
        message = f"vocab_size {config.vocab_size:,} is smaller than the tokenizer's {vocab_size:,}"
        raise InputError(message, where=str(path), fix=f"set vocab_size to {vocab_size} or more")
    return config


@overload
def load_model(model: str | Path, *, dtype: torch.dtype = ...) -> GPTForCausalLM: ...
@overload
def load_model(model: str | Path, *, dtype: torch.dtype = ..., head: type[Model]) -> Model: ...
def load_model(
    model: str | Path, *, dtype: torch.dtype = torch.float32, head: type[GPTPreTrainedModel] = GPTForCausalLM
) -> GPTPreTrainedModel:
    """Return the model in a directory of ours, in transformers' gpt2 or openai-gpt one, or under hf:NAME, in eval mode.

    Weights come from safetensors alone, in `dtype` whatever the file's own. A GPTForCausalLM comes from a fine-tuned
    model too; a GPTDoubleHeadsModel comes from nothing else. InputError for anything else, on one line.
    """
    return _built(*read_directory(model_directory(model), head), dtype, head)


def weights_sha256(directory: Path) -> str:
    """Return the sha256 over the weight files of a model directory, by name."""
    digest = hashlib.sha256()
    for path in weight_files(directory):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def load_source(source: str | Path) -> GPTForCausalLM | GPTDoubleHeadsModel:
    """Return the model in any format that convert reads, in its own dtype, so that its bits can be written back."""
    is_directory = str(source).startswith("hf:") or (Path(source) / "model" / "config.json").exists()
    config, state = read_source(source_directory(source) if is_directory else source)
    dtype = state["transformer.wte.weight"].dtype
    if "score.weight" in state:
        return _built(config, state, dtype, GPTDoubleHeadsModel)
    return _built(config, state, dtype, GPTForCausalLM)


def _built(config: GPTConfig, state: State, dtype: torch.dtype, head: type[Model]) -> Model:
    with quiet_transformers():
        return head.from_pretrained(None, config=config, state_dict=state, dtype=dtype)
