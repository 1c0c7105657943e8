"""Types of heads: a model whose heads are built by hand to be of each type is found to be exactly that."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gpt_toy import FAMILIES, toy
from gptkit.inspect.head_types import HEAD_TYPES, NamedHead, head_types_of, repeated_tokens
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM

TOKENS, POSITIONS, WIDTH = 12, 24, 96
TOKEN, PLACE, BEFORE = 0, TOKENS, TOKENS + POSITIONS  # where one-hot token, position and previous token begin
SHARP = 300.0  # makes the softmax exact in fp32


@torch.no_grad()
def built_by_hand(pre_norm: bool) -> GPTForCausalLM:
    """Return a model of 2 x 2 heads: 0.0 looks at the token before and notes it, 0.1 at the first, 1.0 is induction.

    All positions have the same numbers, each at other places, so that layer norms scale them all alike.
    """
    sizes = {"vocab_size": TOKENS, "n_positions": POSITIONS, "n_embd": WIDTH, "n_layer": 2, "n_head": 2}
    model = GPTForCausalLM(GPTConfig(**sizes, pre_norm=pre_norm)).eval()
    for name, parameter in model.named_parameters():
        parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
    body = model.transformer
    body.wte.weight[:, TOKEN:PLACE] = torch.eye(TOKENS)
    body.wpe.weight[:, PLACE:BEFORE] = torch.eye(POSITIONS)
    first, second = (block.attn for block in body.h)
    query, key, value = parts(first.c_attn.weight, head=0)
    query[: POSITIONS - 1, PLACE + 1 : BEFORE] = SHARP * torch.eye(POSITIONS - 1)
    key[:POSITIONS, PLACE:BEFORE] = torch.eye(POSITIONS)
    value[:TOKENS, TOKEN:PLACE] = torch.eye(TOKENS)
    first.c_proj.weight[BEFORE : BEFORE + TOKENS, :TOKENS] = torch.eye(TOKENS)
    parts(first.c_attn.bias, head=1)[0][0] = SHARP
    parts(first.c_attn.weight, head=1)[1][0, PLACE] = SHARP
    query, key, _ = parts(second.c_attn.weight, head=0)
    query[:TOKENS, TOKEN:PLACE] = SHARP * torch.eye(TOKENS)
    key[:TOKENS, BEFORE : BEFORE + TOKENS] = torch.eye(TOKENS)
    parts(second.c_attn.bias, head=0)[0][TOKENS] = SHARP  # not the first position, which has no token before it
    key[TOKENS, PLACE] = -SHARP
    return model


def parts(joined: Tensor, head: int) -> list[Tensor]:
    """Return views of a head's rows of c_attn for query, key and value."""
    width = WIDTH // 2
    return [joined[start : start + width] for start in range(head * width, 3 * WIDTH, WIDTH)]


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_heads_built_by_hand_score_one(pre_norm: bool) -> None:
    found = head_types_of(built_by_hand(pre_norm))
    assert found.scores[0, 0, 0] == found.scores[0, 1, 1] == found.scores[1, 0, 2] == 1.0
    assert found.scores[1, 1].max() < 0.4  # nothing was built there
    expected = [(0, 0, "previous-token"), (0, 1, "first-token"), (1, 0, "induction")]
    assert [head[:3] for head in found.names()] == expected
    assert found.clearest() == (0, 0)


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_an_untrained_model_has_no_types(pre_norm: bool) -> None:
    found = head_types_of(GPTForCausalLM(toy(pre_norm).config).eval())
    assert found.names() == ()
    assert found.scores.shape == (3, 4, len(HEAD_TYPES))


def test_of_several_types_the_strongest_counts() -> None:
    found = head_types_of(built_by_hand(True))
    found.scores[1, 1] = (0.5, 0.39, 0.6)
    assert found.names()[-1] == NamedHead(1, 1, "induction", pytest.approx(0.6))


def test_the_random_tokens_are_distinct_and_repeated_as_far_as_the_model_allows() -> None:
    for vocab_size, n_positions, length in ((50257, 1024, 64), (40, 1024, 38), (50257, 24, 12)):
        drawn = repeated_tokens(vocab_size, n_positions, {0, 5})
        assert drawn.shape == (4, 2 * length)
        assert (drawn[:, :length] == drawn[:, length:]).all()
        assert all(len({*row.tolist()} - {0, 5}) == length for row in drawn)
    assert not np.array_equal(drawn[0], drawn[1])
