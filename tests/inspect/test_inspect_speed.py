"""An inspection of GPT-2 small's shape is there within seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from generation_toy import TEXT
from gptkit.inspect.inspection import inspect_model
from gptkit.inspect.knock_out import MOST_SECONDS
from gptkit.inspect.page import write_page
from gptkit.inspect.sidecar import write_sidecar
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.kinds import train_tokenizer

SECONDS = 10  # on two cores, imports apart


@pytest.mark.slow
def test_128_tokens_of_gpt2_small_take_ten_seconds(tmp_path: Path) -> None:
    train_tokenizer("char", [TEXT]).save_pretrained(tmp_path)
    GPTForCausalLM(GPTConfig()).save_pretrained(tmp_path)
    began = time.perf_counter()
    found = inspect_model(tmp_path, [TEXT[:127]], device="cpu")
    write_sidecar(found, tmp_path / "inspect.safetensors")
    write_page(found, tmp_path / "inspect.html")
    assert time.perf_counter() - began < SECONDS
    assert found.attention.weights.shape == (12, 12, 128, 128)
    assert found.knock_out is None  # it would take 36 s


@pytest.mark.slow
def test_the_longest_text_that_gpt2_small_knocks_out_by_default_takes_ten_seconds(tmp_path: Path) -> None:
    train_tokenizer("char", [TEXT]).save_pretrained(tmp_path)
    GPTForCausalLM(GPTConfig()).save_pretrained(tmp_path)
    began = time.perf_counter()
    found = inspect_model(tmp_path, [TEXT[:16]], device="cpu")
    write_page(found, tmp_path / "inspect.html")
    assert time.perf_counter() - began < SECONDS
    assert found.knock_out is not None
    assert found.knock_out_seconds + found.knock_out_seconds / 17 > MOST_SECONDS
