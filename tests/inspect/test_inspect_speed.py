"""The time that an inspection of GPT-2 small's shape takes, beside forward passes of transformers' model."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from generation_toy import TEXT
from gptkit.inspect.inspection import inspect_model
from gptkit.inspect.knock_out import MOST_SECONDS, OPERATIONS_PER_SECOND, knock_out_of_text, seconds_of
from gptkit.inspect.page import write_page
from gptkit.inspect.sidecar import write_sidecar
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.kinds import train_tokenizer

TOKENS = 128
MOST_PASSES = 20  # 12.8 to 13.5 on AVX2 (Zen 3), page included: 6.5 to 6.9 s, of the 10 s asked on two cores

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def forward_pass() -> Callable[[], float]:
    """Return the seconds of a forward pass of transformers' GPT-2 small over 128 tokens, the best of three."""
    peer, ids = GPT2LMHeadModel(GPT2Config()).eval(), torch.zeros(1, TOKENS, dtype=torch.long)

    def seconds() -> float:
        with torch.inference_mode():
            return min(_seconds(lambda: peer(ids)) for _ in range(3))

    return seconds


def test_an_inspection_of_128_tokens_takes_few_forward_passes(
    tmp_path: Path, forward_pass: Callable[[], float]
) -> None:
    train_tokenizer("char", [TEXT]).save_pretrained(tmp_path)
    GPTForCausalLM(GPTConfig()).save_pretrained(tmp_path)

    def inspect() -> None:
        found = inspect_model(tmp_path, [TEXT[: TOKENS - 1]], device="cpu")
        write_sidecar(found, tmp_path / "inspect.safetensors")
        write_page(found, tmp_path / "inspect.html")
        assert found.attention.weights.shape == (12, 12, TOKENS, TOKENS)
        assert found.knock_out is None  # it would take a minute
        assert found.knock_out_seconds > MOST_SECONDS

    assert _seconds(inspect) < MOST_PASSES * forward_pass()


def test_a_knock_out_takes_as_long_for_its_operations_as_a_forward_pass(forward_pass: Callable[[], float]) -> None:
    model, ids = GPTForCausalLM(GPTConfig()).eval(), torch.zeros(10, dtype=torch.long)
    operations = seconds_of(model, len(ids)) * OPERATIONS_PER_SECOND
    of_a_pass = 2 * TOKENS * model.num_parameters()
    measured = min(_seconds(lambda: knock_out_of_text(model, ids, ids)) for _ in range(2))
    assert measured < 2 * forward_pass() * operations / of_a_pass  # equal on AVX2 (Zen 3), for 17 tokens


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
