"""One head by hand: whoever recomputes it from its numbers arrives at the model's."""

from __future__ import annotations

import numpy as np
import pytest

from gpt_toy import FAMILIES, ids, toy
from gptkit.inspect.attention import attention_of
from gptkit.inspect.hand import hand_of
from gptkit.inspect.trace import trace


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_every_step_can_be_recomputed(pre_norm: bool) -> None:
    model = toy(pre_norm)
    found = trace(model, ids(1, 12)[0].tolist())
    attention = attention_of(found)
    for layer in range(model.config.n_layer):
        hands = [hand_of(model, found, layer, head) for head in range(model.config.n_head)]
        for hand in hands:
            scores = hand.query @ hand.key.T / np.sqrt(hand.query.shape[-1])
            lower = np.tril(np.exp(scores - scores.max()))
            weights = lower / lower.sum(-1, keepdims=True)
            np.testing.assert_allclose(weights, attention.weights[layer, hand.head], atol=1e-5)
            np.testing.assert_allclose(weights @ hand.value, hand.output, atol=1e-5)
        written = sum(hand.written for hand in hands) + model.transformer.h[layer].attn.c_proj.bias.detach().numpy()
        np.testing.assert_allclose(written, found.attention_output[layer], atol=1e-5)
