"""Plain transformers' format: GPT2LMHeadModel, or OpenAIGPTLMHeadModel for GPT-1; matrices are (in, out)."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    OpenAIGPTLMHeadModel,
    OpenAIGPTTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from gptkit.console import Console
from gptkit.convert import own
from gptkit.model.configuration_gpt import GPTConfig, foreign_config, hf_config, quiet_transformers
from gptkit.model.loading import State, save_model, transposed
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model_files import EMBEDDINGS
from gptkit.system.run_layout import described_in
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer

NO_HEAD = "plain transformers has no equivalent"
read = own.read
tensors = own.tensors


def matches(path: Path) -> bool:
    return (described_in(path) / "config.json").exists()


def in_its_own_code(folder: Path) -> PreTrainedModel:
    """Return the model in a directory as transformers' own class, built from our reading of its tensors."""
    config = foreign_config(folder / "config.json")
    theirs = GPT2LMHeadModel if isinstance(config, GPT2Config) else OpenAIGPTLMHeadModel
    with quiet_transformers():
        model: PreTrainedModel = theirs.from_pretrained(None, config=config, state_dict=own.read_weights(folder))
    return model


def write(model: GPTForCausalLM, folder: Path) -> None:
    """Write the exact weights in their dtype; InputError for a config that transformers' class cannot express."""
    theirs = GPT2LMHeadModel if model.config.pre_norm else OpenAIGPTLMHeadModel
    config = hf_config(model.config)
    state = to_hf(model.config, model.state_dict())
    with quiet_transformers():
        exported = theirs.from_pretrained(None, config=config, state_dict=state, dtype=model.dtype)
    save_model(exported, folder)


def to_hf(config: GPTConfig, state: State) -> State:
    """Return our state dict with the names and layout of gpt2 or openai-gpt."""
    theirs: State = {}
    for name, tensor in state.items():
        if not config.pre_norm:
            for foreign, ours in EMBEDDINGS.items():
                name = name.replace(ours, foreign)
        theirs[name] = transposed(name, tensor).contiguous()
    return theirs


def read_back(folder: Path) -> PreTrainedModel:
    """Load a directory that was just written, the way a user of transformers would."""
    with quiet_transformers():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    return model


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, console: Console) -> None:
    """Write the tokenizer; GPT-1's becomes transformers' own class."""
    if isinstance(tokenizer, GPT1Tokenizer):
        console.warn("plain transformers splits text for GPT-1 differently: ids differ, and there is no newline token")
        added = sorted(tokenizer.added_tokens_encoder.items(), key=lambda item: item[1])
        tokenizer = OpenAIGPTTokenizer(tokenizer.vocabulary, tokenizer.merges)  # type: ignore[arg-type]
        tokenizer.add_tokens([token for token, _ in added], special_tokens=True)
    tokenizer.save_pretrained(folder)
