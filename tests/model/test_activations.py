"""Every activation is computed alike by the model, scoring's body and the native engine, or by the model alone."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gpt_toy import FAMILIES, ids, toy
from gptkit.decoding.engines import NativeUnavailableError, Piece
from gptkit.decoding.native import engine
from gptkit.model.modeling_gpt import ACTIVATIONS, GPTForCausalLM
from gptkit.model_files import Activation
from gptkit.scoring.scorer import body_of

TOKENS = ids(1, 12)


def logits_of_the_model(model: GPTForCausalLM) -> Tensor:
    return model(TOKENS).logits[0, -1]


def logits_of_the_body(model: GPTForCausalLM) -> Tensor:
    body = body_of(model.transformer, torch.device("cpu"), torch.float32)
    return model.lm_head(body(TOKENS, None, None, torch.tensor([11])))[0]


def logits_of_the_native_engine(model: GPTForCausalLM) -> Tensor:
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    native = engine.NativeEngine(model.config, weights)
    native.open(1, 24)
    return torch.from_numpy(native.forward([Piece(0, 0, TOKENS[0].tolist())])[0])


def test_the_model_knows_them_all() -> None:
    assert set(ACTIVATIONS) == set(get_args(Activation))
    assert {"gelu_new", "gelu"} <= set(engine.ACTIVATIONS) <= set(ACTIVATIONS)


@torch.inference_mode()
@pytest.mark.parametrize("pre_norm", FAMILIES)
@pytest.mark.parametrize("activation", get_args(Activation))
def test_the_three_forward_passes_agree(activation: str, pre_norm: bool) -> None:
    model = toy(pre_norm, activation_function=activation)
    expected = logits_of_the_model(model)
    np.testing.assert_allclose(logits_of_the_body(model), expected, atol=1e-4)
    if activation in engine.ACTIVATIONS:
        np.testing.assert_allclose(logits_of_the_native_engine(model), expected, atol=1e-4)
    else:  # torch decodes it
        with pytest.raises(NativeUnavailableError, match=activation):
            logits_of_the_native_engine(model)
    other = next(name for name in get_args(Activation) if name != activation)
    assert not np.allclose(logits_of_the_model(toy(pre_norm, activation_function=other)), expected, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_one_that_only_the_model_knows_is_computed_by_it(pre_norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new one is, before it has a fast path: nothing takes it for another."""
    monkeypatch.setitem(ACTIVATIONS, "brand_new", nn.ReLU)  # type: ignore[misc]
    model = toy(pre_norm)
    for block in model.transformer.h:
        block.mlp.act = nn.ReLU()
    vars(model.config)["activation_function"] = "brand_new"
    np.testing.assert_allclose(logits_of_the_body(model), logits_of_the_model(model), atol=1e-4)
    with pytest.raises(NativeUnavailableError, match="brand_new"):
        logits_of_the_native_engine(model)
