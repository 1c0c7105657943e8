"""A small random model with its tokenizer, to generate from."""

from __future__ import annotations

from pathlib import Path

import torch

from gptkit.data.tokenizers import train_tokenizer
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM

TEXT = "First Citizen: before we proceed any further, hear me speak \x1b[1m\n" * 30
POSITIONS = 24


def write_model(folder: Path, tokenizer_spec: str = "char", seed: int = 0, text: str = TEXT) -> Path:
    tokenizer = train_tokenizer(tokenizer_spec, [text])
    torch.manual_seed(seed)
    sizes = {"n_positions": POSITIONS, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPTForCausalLM(GPTConfig(vocab_size=2 * len(tokenizer), **sizes))  # half of the rows have no token
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
