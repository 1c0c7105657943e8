from __future__ import annotations

import pytest
import torch

from gptkit.finetune.job import layer_rates
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.training.optimizers import Layer, Rate, build_optimizer
from gptkit.training.options import TrainingOptions


def test_hand_worked_layers_of_two_blocks() -> None:
    layer_of = layer_rates(2, decay=0.5, unfreeze="gradual", steps_per_epoch=10)
    expected = {
        "score.weight": Layer("head", 1.0, 1),
        "transformer.ln_f.bias": Layer("head", 1.0, 1),
        "lm_head.weight": Layer("head", 1.0, 1),  # one that is not tied
        "transformer.h.1.mlp.c_fc.weight": Layer("block 1", 0.5, 11),
        "transformer.h.0.ln_1.weight": Layer("block 0", 0.25, 21),
        "transformer.wpe.weight": Layer("embeddings", 0.125, 31),
        "transformer.wte.weight": Layer("embeddings", 0.125, 31),
    }
    assert {name: layer_of(name) for name in expected} == expected
    at_once = layer_rates(2, decay=1.0, unfreeze="all", steps_per_epoch=10)
    assert {at_once(name).factor for name in expected} == {1.0}
    assert {at_once(name).first_step for name in expected} == {1}
    deep = layer_rates(12, decay=1.0, unfreeze="all", steps_per_epoch=1)
    assert deep("transformer.h.11.attn.c_attn.bias").name == "block 11"


@pytest.mark.parametrize("choice", ["openai-adam", "muon"])
def test_the_table_of_rates_is_the_formula(choice: str) -> None:
    """GPT-1's 12 layers and ULMFiT's factor 2.6, worked out apart from the code."""
    config = GPTConfig(vocab_size=11, n_positions=8, n_embd=8, n_layer=12, n_head=2)
    with torch.device("meta"):
        model = GPTForCausalLM(config)
    options = TrainingOptions(optimizer=choice, learning_rate=0.01, muon_learning_rate=0.1)  # type: ignore[arg-type]
    layer_of = layer_rates(12, decay=1 / 2.6, unfreeze="gradual", steps_per_epoch=7)
    rows = build_optimizer(model.named_parameters(), options, layer_of=layer_of).rates()
    expected = [Rate("embeddings", 0.01 / 2.6**13, 92)]
    for block in range(12):
        below = 12 - block
        expected.append(Rate(f"block {block}", 0.01 / 2.6**below, 1 + 7 * below))
        if choice == "muon":
            expected.append(Rate(f"block {block} (Muon)", 0.1 / 2.6**below, 1 + 7 * below))
    expected.append(Rate("head", 0.01, 1))
    assert [(row.layer, row.first_step) for row in rows] == [(row.layer, row.first_step) for row in expected]
    assert [row.peak for row in rows] == pytest.approx([row.peak for row in expected], rel=1e-12)
