"""Who wrote a token: the part of each head, MLP, embedding and bias in the logit of the next token.

With the scale of every layer norm held at its value, a logit is linear in all that was written before it: the gradient
of the logit by the residual stream, taken back place by place, weighs what each part wrote there. In GPT-2 it passes
one layer norm, the final one; in GPT-1 two in each layer. The parts sum to the logit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gptkit.inspect.trace import Trace, blocks_of
from gptkit.model.modeling_gpt import GPTForCausalLM


@dataclass(frozen=True, eq=False)
class Shares:
    """Parts of the targets' logits. `bias`: of all projections back to the stream, and of layer norms, together.

    A head's part includes its value bias, which reaches it whatever it attends to.
    """

    heads: NDArray[np.float32]  # (layer, head, position)
    mlps: NDArray[np.float32]  # (layer, position)
    token: NDArray[np.float32]  # (position,): of the token embedding
    position: NDArray[np.float32]  # (position,): of the position embedding
    bias: NDArray[np.float32]  # (position,)
    logit: NDArray[np.float32]  # (position,)


@torch.no_grad()
def shares_of(model: GPTForCausalLM, trace: Trace, logits: Tensor, targets: Tensor) -> Shares:
    """Divide the logits (position, vocab) of the targets (position,), in float64, as large parts cancel."""
    blocks, final = blocks_of(model), model.transformer.ln_f
    weigh = _Gradient(model.lm_head.weight[targets])
    if isinstance(final, nn.LayerNorm):  # GPT-2
        weigh.back_through(final, trace.residual[-1])
    heads, mlps = [], []
    for layer in reversed(range(model.config.n_layer)):
        block, start, between = blocks[layer], trace.residual[2 * layer], trace.residual[2 * layer + 1]
        if not block.pre_norm:
            weigh.back_through(block.ln_2, between + trace.mlp_output[layer])
        weigh.add_bias(block.mlp.c_proj)
        mlps.append(weigh(trace.mlp_output[layer]) - weigh(block.mlp.c_proj.bias))
        if not block.pre_norm:
            weigh.back_through(block.ln_1, start + trace.attention_output[layer])
        weigh.add_bias(block.attn.c_proj)
        heads.append(weigh.of_heads(block.attn.c_proj, trace.attended[layer]))
    found = (
        torch.stack(heads[::-1]),
        torch.stack(mlps[::-1]),
        weigh(trace.token_embedding),
        weigh(trace.position_embedding),
        weigh.bias,
        logits.gather(-1, targets[:, None]).squeeze(-1),
    )
    return Shares(*(tensor.float().cpu().numpy() for tensor in found))


class _Gradient:
    """The gradient (position, n_embd) of the logits by a place of the stream; `bias` sums what was added after it."""

    def __init__(self, gradient: Tensor) -> None:
        self.gradient = gradient.cpu().double()
        self.bias = self.gradient.new_zeros(len(gradient))  # (position,)

    def __call__(self, written: Tensor) -> Tensor:
        """Return the part (position,) of what was written (position, n_embd)."""
        return (self.gradient * written.cpu().double()).sum(-1)

    def add_bias(self, module: nn.Linear | nn.LayerNorm) -> None:
        self.bias += self(module.bias)

    def back_through(self, norm: nn.LayerNorm, seen: Tensor) -> None:
        """Go back to before a layer norm that saw `seen` (position, n_embd); its scale is held."""
        self.add_bias(norm)
        variance = seen.cpu().double().var(-1, unbiased=False, keepdim=True)
        gradient = self.gradient * norm.weight.cpu().double() * (variance + norm.eps).rsqrt()
        self.gradient = gradient - gradient.mean(-1, keepdim=True)  # its centring

    def of_heads(self, projection: nn.Linear, attended: Tensor) -> Tensor:
        """Return the parts (head, position) of what heads attended (head, position, head_dim) to."""
        heads, length, _ = attended.shape
        by_input = self.gradient @ projection.weight.cpu().double()  # (position, n_embd)
        by_head = by_input.view(length, heads, -1).transpose(0, 1)  # (head, position, head_dim)
        return (by_head * attended.cpu().double()).sum(-1)
