"""Plain transformers' format: GPT2LMHeadModel, or OpenAIGPTLMHeadModel for GPT-1; matrices are (in, out)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    OpenAIGPTLMHeadModel,
    OpenAIGPTTokenizer,
    PreTrainedTokenizerBase,
)

from gptkit.console import Console
from gptkit.convert import own
from gptkit.convert.proof import Peer
from gptkit.convert.torch_peer import TorchPeer
from gptkit.model.configuration_gpt import GPTConfig, foreign_config, hf_config, quiet_transformers
from gptkit.model.loading import State, transposed
from gptkit.model.modeling_gpt import GPTPreTrainedModel
from gptkit.model_files import EMBEDDINGS
from gptkit.system.run_layout import described_in
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer

read = own.read
tensors = own.tensors


def matches(path: Path) -> bool:
    return (described_in(path) / "config.json").exists()


def in_its_own_code(folder: Path) -> Peer:
    """Return the model in a directory as transformers' own class, built from our reading of its tensors."""
    config = foreign_config(folder / "config.json")
    theirs = GPT2LMHeadModel if isinstance(config, GPT2Config) else OpenAIGPTLMHeadModel
    with quiet_transformers():
        model = theirs.from_pretrained(None, config=config, state_dict=own.read_weights(folder))
    return TorchPeer(model, None, name="transformers", version=transformers.__version__)


def refuse(model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, dtype: str) -> None:
    """Raise InputError for a configuration that transformers' class cannot express."""
    hf_config(model.config)


def write(
    model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, dtype: str, console: Console
) -> None:
    """Write the exact weights in their dtype, with the hub's names."""
    theirs = GPT2LMHeadModel if model.config.pre_norm else OpenAIGPTLMHeadModel
    config = hf_config(model.config)
    with torch.device("meta"), quiet_transformers():
        empty = theirs(config)  # type: ignore[arg-type]
    own.write_description(empty, config, folder, dtype)
    own.write_weights(to_hf(model.config, own.saved_state(model)), folder, dtype)
    if tokenizer is not None:
        write_tokenizer(tokenizer, folder, console)


def to_hf(config: GPTConfig, state: State) -> State:
    """Return our state dict with the names and layout of gpt2 or openai-gpt; matrices are transposed views."""
    theirs: State = {}
    for name, tensor in state.items():
        if not config.pre_norm:
            for foreign, ours in EMBEDDINGS.items():
                name = name.replace(ours, foreign)
        theirs[name] = transposed(name, tensor)
    return theirs


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, console: Console) -> None:
    """Write the tokenizer; GPT-1's becomes transformers' own class."""
    if isinstance(tokenizer, GPT1Tokenizer):
        console.warn("plain transformers splits text for GPT-1 differently: ids differ, and there is no newline token")
        added = sorted(tokenizer.added_tokens_encoder.items(), key=lambda item: item[1])
        tokenizer = OpenAIGPTTokenizer(tokenizer.vocabulary, tokenizer.merges)  # type: ignore[arg-type]
        tokenizer.add_tokens([token for token, _ in added], special_tokens=True)
    tokenizer.save_pretrained(folder)


def open_peer(folder: Path) -> Peer:
    """Load a directory that was just written, the way a user of transformers would."""
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        has_tokenizer = (folder / "tokenizer_config.json").exists()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True) if has_tokenizer else None

    encode = partial(tokenizer.encode, add_special_tokens=False) if tokenizer else None
    return TorchPeer(model, encode, name="transformers", version=transformers.__version__)
