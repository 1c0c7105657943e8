"""Knock-out: each loss is that of a model whose weights are zero there, and a head that alone predicts comes first."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from built_toy import PLACE, TOKEN, TOKENS, built_by_hand
from fine_tuned_toy import FIELDS, fine_tuned
from gpt_toy import FAMILIES, ids, toy
from gptkit.inspect.knock_out import knock_out_of_answer, knock_out_of_text, seconds_of
from gptkit.inspect.reading import read
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.loading import load_model
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM

LENGTH = 12


@torch.no_grad()
def without(model: torch.nn.Module, layer: int, part: int | str) -> torch.nn.Module:
    """Return a copy whose weights write nothing from a head (its bias stays), an attention or an MLP (bias and all)."""
    model = copy.deepcopy(model)
    block = model.transformer.h[layer]
    match part:
        case "attention":
            block.attn.c_proj.weight.zero_(), block.attn.c_proj.bias.zero_()
        case "mlp":
            block.mlp.c_proj.weight.zero_(), block.mlp.c_proj.bias.zero_()
        case _:
            head_dim = block.attn.head_dim
            block.attn.c_proj.weight[:, part * head_dim : (part + 1) * head_dim] = 0
    return model


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_each_loss_on_a_text_is_that_of_a_separate_run(pre_norm: bool, kernel: str) -> None:
    model, row = toy(pre_norm), ids(1, LENGTH)[0]
    model.set_attn_implementation(kernel)
    targets = row.roll(-1)
    found = knock_out_of_text(model, row, targets)

    def separate(layer: int, part: int | str) -> np.ndarray:
        with torch.no_grad():
            logits = without(model, layer, part)(input_ids=row[None]).logits[0]
        return F.cross_entropy(logits, targets, reduction="none").numpy()

    with torch.no_grad():
        whole = F.cross_entropy(model(input_ids=row[None]).logits[0], targets, reduction="none")
    np.testing.assert_allclose(found.whole, whole, atol=1e-5)
    for layer in range(model.config.n_layer):
        for index, part in enumerate((*range(model.config.n_head), "attention", "mlp")):
            np.testing.assert_allclose(found.losses[layer, index], separate(layer, part), atol=1e-5)
    assert np.abs(found.changes).max(-1).min() > 1e-3  # every part counts here, so that none is confused


@pytest.mark.parametrize("pre_norm", FAMILIES)
@pytest.mark.parametrize("name", FIELDS)
def test_each_loss_of_an_answer_is_that_of_a_separate_run(name: str, pre_norm: bool, tmp_path: Path) -> None:
    directory = fine_tuned(tmp_path / "model", name, pre_norm, head="concat" if pre_norm else "extract")
    model = load_model(directory, head=GPTDoubleHeadsModel)
    asked = read(directory, FIELDS[name], 128).asked
    assert asked is not None
    batch = {key: torch.from_numpy(array) for key, array in asked.encoded.select(np.arange(1)).items()}
    found = knock_out_of_answer(model, asked)
    logits = model(**batch).logits.detach()
    label = {"stsb": logits, "stsb-soft": logits.softmax(-1)}.get(name, logits.argmax(-1))

    def separate(layer: int, part: int | str) -> float:
        with torch.no_grad():
            return float(without(model, layer, part)(**batch, labels=label).loss)

    assert found.whole == pytest.approx(model(**batch, labels=label).loss.item(), abs=1e-5)
    for layer in range(model.config.n_layer):
        for index, part in enumerate((*range(model.config.n_head), "attention", "mlp")):
            assert found.losses[layer, index] == pytest.approx(separate(layer, part), abs=1e-5)


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_the_only_head_that_predicts_comes_first(pre_norm: bool) -> None:
    model = built_by_hand(pre_norm)
    with torch.no_grad():  # head 0.0 predicts the token before, which in this text always comes next
        model.transformer.h[0].attn.c_proj.weight[TOKEN:PLACE, :TOKENS] = 10 * torch.eye(TOKENS)
    row = torch.tensor([3, 7] * 6)
    found = knock_out_of_text(model, row, row.roll(-1))
    assert [found.name(*part) for part in found.most(2)] == ["head 0.0", "attention 0"]  # no bias: the same
    rise = found.changes[..., 1:].mean(-1)  # (layer, part); the first token has none before it
    assert rise[0, 0] == pytest.approx(rise[0, 2], abs=1e-5)
    assert rise[0, 0] > 1
    np.testing.assert_allclose(np.delete(rise.ravel(), (0, 2)), 0, atol=1e-5)  # the others write nothing that is read


def test_nothing_of_a_knock_out_stays_in_the_model() -> None:
    model, row = toy(), ids(1, LENGTH)
    before = model(input_ids=row).logits
    knock_out_of_text(model, row[0], row[0])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.transformer.h.modules())
    torch.testing.assert_close(model(input_ids=row).logits, before, atol=0, rtol=0)


def test_the_estimate_counts_multiplications() -> None:
    model = GPTForCausalLM(GPTConfig(vocab_size=100, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    block = sum(parameter.numel() for parameter in model.transformer.h.parameters())
    assert seconds_of(model, 8) == pytest.approx(2 * 4 * 8 * (block + 16 * 100) / 6e10)  # 4 parts of 8 tokens
    assert seconds_of(model, 8, answered=8) == pytest.approx(2 * 4 * 8 * (2 * block + 16 * 100) / 6e10)
