"""A model whose heads are built by hand, so that what each of them does is known."""

from __future__ import annotations

import torch
from torch import Tensor

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
