"""Tiny models for the tests, with weights far from their start, so that every tensor matters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.model.configuration_gpt import GPTConfig, LSTMConfig
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model.modeling_lstm import LSTMForCausalLM
from gptkit.system.processor import cpu_has_bf16

SIZES: dict[str, Any] = {"vocab_size": 61, "n_positions": 24, "n_embd": 32, "n_layer": 3, "n_head": 4}
FAMILIES = [True, False]  # pre_norm: GPT-2, GPT-1
needs_bf16 = pytest.mark.skipif(not cpu_has_bf16(), reason="the CPU has no bf16")


def toy(pre_norm: bool = True, seed: int = 0, **changes: Any) -> GPTForCausalLM:
    """Return a tiny model in eval mode."""
    model = GPTForCausalLM(GPTConfig(**{**SIZES, "pre_norm": pre_norm, **changes}))
    return shaken(model, seed).eval()


def lstm_toy(seed: int = 0, **changes: Any) -> LSTMForCausalLM:
    """Return a tiny LSTM of two layers in eval mode."""
    sizes = {"vocab_size": 61, "n_positions": 24, "n_embd": 16, "n_inner": 24, "n_layer": 2}
    model: LSTMForCausalLM = shaken(LSTMForCausalLM(LSTMConfig(**{**sizes, **changes})), seed).eval()
    return model


@torch.no_grad()
def shaken(model: Any, seed: int = 0) -> Any:
    """Draw every parameter anew, layer norms and biases too, so that logits spread over several units."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(noise * (0.2 if parameter.ndim == 2 else 0.5) + (parameter.ndim == 1))
    return model


def ids(rows: int = 2, length: int = 12, seed: int = 0) -> Tensor:
    """Return random token ids (rows, length)."""
    return torch.randint(SIZES["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(seed))
