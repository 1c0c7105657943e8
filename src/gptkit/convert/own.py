"""gptkit's own model directories; convert also reads weights from pytorch_model.bin, without running its code."""

from __future__ import annotations

import copy
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.configuration_utils import PreTrainedConfig

from gptkit.console import Console
from gptkit.convert.dtypes import TORCH
from gptkit.convert.formats import Exporter, Importer
from gptkit.convert.pickled import load_pickled, plain_tensors
from gptkit.convert.proof import Peer
from gptkit.convert.torch_peer import own_peer
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import GPTConfig, quiet_transformers
from gptkit.model.loading import State, build_model, read_directory, read_safetensors, read_shards, saved_head
from gptkit.model.modeling_gpt import GPTPreTrainedModel
from gptkit.model_files import PYTORCH_BIN, SAFETENSORS, files_named, model_type, row_parts
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import described_in
from gptkit.text.tokenizers.files import CONFIG_FILE
from gptkit.text.tokenizers.loading import tokenizer_in
from gptkit.training.checkpoint_files import safetensors_chunks


def matches(path: Path) -> bool:
    config = described_in(path) / "config.json"
    return config.exists() and model_type(read_json_object(config)) == "gptkit"


def read(path: Path) -> tuple[GPTConfig, State]:
    """Return the config and weights in a directory of ours, or of transformers' gpt2 or openai-gpt."""
    return read_directory(path, saved_head(path), read_weights)


def write(
    model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, dtype: str, _: Console
) -> None:
    """Write the weights, exact where they are in this dtype already, and what describes them."""
    write_description(model, model.config, folder, dtype)
    write_weights(saved_state(model), folder, dtype)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def open_peer(folder: Path) -> Peer:
    """Return our own reading of the directory."""
    tokenizer = tokenizer_in(folder) if (folder / CONFIG_FILE).exists() else None
    head = saved_head(folder)
    config, state = read_directory(folder, head)
    return own_peer(build_model(config, state, next(iter(state.values())).dtype, head), tokenizer)


def write_description(model: PreTrainedModel, config: PreTrainedConfig, folder: Path, dtype: str) -> None:
    """Write config.json, and generation_config.json for a model that generates."""
    config = copy.deepcopy(config)
    config.architectures, config.dtype = [type(model).__name__], TORCH[dtype]
    with quiet_transformers():
        config.save_pretrained(folder)
        if model.can_generate():
            model.generation_config.save_pretrained(folder)


def saved_state(model: GPTPreTrainedModel) -> State:
    """Return the tensors of a model without a copy of those that are tied."""
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def write_weights(state: State, folder: Path, dtype: str) -> None:
    """Write model.safetensors, casting and copying one tensor at a time: a large model is in memory once."""
    with open(folder / SAFETENSORS, "xb") as file:
        file.writelines(safetensors_chunks(state, dtype=TORCH[dtype], metadata={"format": "pt"}))


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
    fix = "copy the file again, or save it as safetensors"
    return read_shards(pickled, lambda file: plain_tensors(load_pickled(file, fix), str(file)))


IMPORTER = Importer(matches, read)
EXPORTER = Exporter(write, open_peer, head_obstacle=lambda model: None, tensors=read_safetensors, holds_task=True)
