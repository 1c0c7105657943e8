"""The native engine generates the same text for a sample in any batch, in every weight format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gptkit.decoding.engines import choose_engine
from gptkit.decoding.loop import Decoder
from gptkit.decoding.native.engine import NativeEngine
from gptkit.decoding.sampling import SamplingRules
from gptkit.decoding.text_options import Quantize, TextModelOptions
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM

POSITIONS = 64
VOCABULARY = 2048
RULES = SamplingRules(top_k=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with 4 layers of 192, whose logits are a few units apart."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_positions": POSITIONS, "n_embd": 192, "n_layer": 4, "n_head": 6}
    path = tmp_path_factory.mktemp("untrained")
    GPTForCausalLM(GPTConfig(**sizes, initializer_range=0.1)).save_pretrained(path)
    return path


def prompts(seed: int) -> list[list[int]]:
    """Return 8 prompts of unequal length, some of which slide soon."""
    random = np.random.default_rng(seed)
    return [random.integers(0, VOCABULARY, length).tolist() for length in (1, 30, 7, 55, 2, 18, 64, 11)]


@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
def test_a_text_depends_on_seed_index_and_prompt_alone(quantize: Quantize, folder: Path) -> None:
    engine = choose_engine(folder, TextModelOptions(device="cpu", precision="fp32", quantize=quantize), tokens=1).open()
    assert isinstance(engine, NativeEngine)

    def texts(rows: list[list[int]], indices: list[int], *, batch_size: int, seed: int = 3) -> list[list[int]]:
        decoder = Decoder(
            engine, rows, max_new_tokens=24, rules=RULES, seed=seed, indices=indices, batch_size=batch_size
        )
        list(decoder)
        return [sample.token_ids for sample in decoder.samples]

    ours, others = prompts(0), prompts(1)
    numbers = list(range(8))
    alone = [texts([prompt], [number], batch_size=1)[0] for number, prompt in enumerate(ours)]
    assert texts(ours, numbers, batch_size=8) == alone
    mixed = [row for pair in zip(others, reversed(ours), strict=True) for row in pair]
    indices = [number for pair in zip(range(8, 16), reversed(numbers), strict=True) for number in pair]
    assert texts(mixed, indices, batch_size=5)[1::2] == alone[::-1]  # through slots that are refilled
    assert texts(ours, numbers, batch_size=8, seed=4) != alone
    assert len({tuple(text) for text in alone}) == 8
