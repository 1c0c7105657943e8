"""A trace holds what the model computes: its path sums to the hidden states, its attention is that of both kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpt_toy import FAMILIES, ids, toy
from gptkit.inspect.attention import attention_of
from gptkit.inspect.trace import Trace, trace
from gptkit.model.modeling_gpt import GPTForCausalLM

LENGTH = 12


def traced(pre_norm: bool, kernel: str = "sdpa") -> tuple[GPTForCausalLM, Trace]:
    model = toy(pre_norm)
    model.set_attn_implementation(kernel)
    return model, trace(model, ids(1, LENGTH)[0].tolist())


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_the_path_sums_to_the_hidden_states(pre_norm: bool) -> None:
    model, found = traced(pre_norm)
    with torch.no_grad():
        expected = model.transformer(input_ids=ids(1, LENGTH), output_hidden_states=True)
    stream = found.token_embedding + found.position_embedding
    places = [stream]
    for layer, block in enumerate(model.transformer.h):
        for written, norm in ((found.attention_output, block.ln_1), (found.mlp_output, block.ln_2)):
            stream = stream + written[layer] if pre_norm else norm(stream + written[layer])
            places.append(stream)
    torch.testing.assert_close(torch.stack(places), found.residual, atol=1e-5, rtol=0)
    # The last of transformers' hidden states is what the head reads.
    hidden = torch.cat([*expected.hidden_states[:-1], expected.last_hidden_state])
    torch.testing.assert_close(torch.stack([*places[:-1:2], found.final]), hidden, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_attention_rows_sum_to_one_and_nothing_is_above_the_diagonal(pre_norm: bool) -> None:
    _, found = traced(pre_norm)
    attention = attention_of(found)
    np.testing.assert_allclose(attention.weights.sum(-1), 1, atol=1e-6)
    above = np.triu_indices(LENGTH, 1)
    assert (attention.weights[..., *above] == 0).all()
    assert (attention.scores[..., *above] == -np.inf).all()
    assert np.isfinite(attention.scores[..., *np.tril_indices(LENGTH)]).all()


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_the_weights_are_those_of_eager_attention_and_explain_what_sdpa_computes(pre_norm: bool) -> None:
    _, by_sdpa = traced(pre_norm)
    attention = attention_of(by_sdpa)
    # SDPA tells no weights, but what it attended to must be their sum of values.
    attended = torch.from_numpy(attention.weights) @ by_sdpa.value
    torch.testing.assert_close(attended, by_sdpa.attended, atol=1e-5, rtol=0)
    eager, by_eager = traced(pre_norm, "eager")
    with torch.no_grad():
        reported = eager.transformer(input_ids=ids(1, LENGTH), output_attentions=True).attentions
    np.testing.assert_allclose(attention.weights, torch.cat(reported), atol=1e-5)
    torch.testing.assert_close(by_sdpa.residual, by_eager.residual, atol=1e-4, rtol=0)


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_a_trace_leaves_the_model_as_it_was(pre_norm: bool) -> None:
    model, found = traced(pre_norm)
    assert not any(module._forward_hooks for module in model.modules() if hasattr(module, "c_attn"))
    logits = model(input_ids=ids(1, LENGTH)).logits[0]
    torch.testing.assert_close(model.lm_head(found.final), logits, atol=1e-5, rtol=0)
