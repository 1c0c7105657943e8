"""Shares of a logit: they sum to it, and each is what a part wrote, sent forward through the layer norms after it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gpt_toy import FAMILIES, ids, toy
from gptkit.inspect.hand import hand_of
from gptkit.inspect.shares import shares_of
from gptkit.inspect.trace import Trace, trace
from gptkit.model.modeling_gpt import GPTForCausalLM

LENGTH = 20


def shared(pre_norm: bool) -> tuple[GPTForCausalLM, Trace, Tensor, Tensor]:
    """Return a model, its trace, its logits and the next tokens."""
    model, row = toy(pre_norm), ids(1, LENGTH)[0]
    found = trace(model, row.tolist())
    logits = model(input_ids=row[None]).logits[0].detach()
    return model, found, logits, row.roll(-1)


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_shares_sum_to_the_logit(pre_norm: bool) -> None:
    model, found, logits, targets = shared(pre_norm)
    shares = shares_of(model, found, logits, targets)
    total = shares.heads.sum((0, 1)) + shares.mlps.sum(0) + shares.token + shares.position + shares.bias
    np.testing.assert_allclose(total, logits.gather(1, targets[:, None])[:, 0], atol=1e-4)
    np.testing.assert_allclose(shares.logit, total, atol=1e-4)


def held(norm: nn.LayerNorm, seen: Tensor, written: Tensor) -> Tensor:
    """Return what a layer norm makes of a part of what it saw, without its bias."""
    scale = (seen.var(-1, unbiased=False, keepdim=True) + norm.eps).rsqrt()
    return (written - written.mean(-1, keepdim=True)) * scale * norm.weight


def forward(model: GPTForCausalLM, found: Trace, written: Tensor, place: int) -> Tensor:
    """Send what was written before `place` of the stream through all layer norms from there on."""
    if model.config.pre_norm:
        return held(model.transformer.ln_f, found.residual[-1], written)
    for after in range(place, len(found.residual)):
        layer, is_mlp = (after - 1) // 2, after % 2 == 0
        output = (found.mlp_output if is_mlp else found.attention_output)[layer]
        norm = model.transformer.h[layer].ln_2 if is_mlp else model.transformer.h[layer].ln_1
        written = held(norm, found.residual[after - 1] + output, written)
    return written


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_a_share_is_what_was_written_sent_through_the_layer_norms(pre_norm: bool) -> None:
    model, found, logits, targets = shared(pre_norm)
    shares = shares_of(model, found, logits, targets)
    reader = model.lm_head.weight[targets].detach()

    def part(written: Tensor, place: int) -> np.ndarray:
        return (forward(model, found, written, place).detach() * reader).sum(-1).numpy()

    for layer, block in enumerate(model.transformer.h):
        for head in range(model.config.n_head):
            written = torch.from_numpy(hand_of(model, found, layer, head).written)
            np.testing.assert_allclose(shares.heads[layer, head], part(written, 2 * layer + 1), atol=1e-4)
        written = found.mlp_output[layer] - block.mlp.c_proj.bias
        np.testing.assert_allclose(shares.mlps[layer], part(written, 2 * layer + 2), atol=1e-4)
    np.testing.assert_allclose(shares.token, part(found.token_embedding, 1), atol=1e-4)
    np.testing.assert_allclose(shares.position, part(found.position_embedding, 1), atol=1e-4)
