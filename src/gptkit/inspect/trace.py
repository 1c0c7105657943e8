"""A forward pass with everything that it computes on the way, recorded by hooks on the model's own modules.

What is recorded is what the model computes, in either family; nothing is computed a second time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTBlock, GPTForCausalLM


class Point(NamedTuple):
    """A tensor of the forward pass: the first input, or the output, of a module."""

    name: str
    module: nn.Module
    side: Literal["input", "output"] = "output"


@dataclass(frozen=True, eq=False)
class Trace:
    """What a GPT computes on one sequence, in fp32 on the model's device; `residual` has 2 * layers + 1 places.

    The places are the sum of the embeddings and then, for each layer, what follows its attention and its MLP: in GPT-2
    the residual stream, in GPT-1 the output of the layer norm after it. Outputs include the biases of projections.
    """

    token_embedding: Tensor  # (position, n_embd)
    position_embedding: Tensor  # (position, n_embd)
    query: Tensor  # (layer, head, position, head_dim)
    key: Tensor  # (layer, head, position, head_dim)
    value: Tensor  # (layer, head, position, head_dim)
    attended: Tensor  # (layer, head, position, head_dim): the sum over keys of weight x value
    attention_output: Tensor  # (layer, position, n_embd)
    mlp_output: Tensor  # (layer, position, n_embd)
    residual: Tensor  # (place, position, n_embd)
    final: Tensor  # (position, n_embd): what the language-model head reads


@torch.no_grad()
def trace(model: GPTForCausalLM, ids: Sequence[int]) -> Trace:
    """Return what a model in eval mode computes on a sequence of 1 to n_positions ids."""
    body = model.transformer
    points = [Point("token", body.wte), Point("position", body.wpe), Point("embedded", body.drop)]
    points += [point for block in blocks_of(model) for point in _points(block)]
    with recording([*points, Point("final", body.ln_f)]) as recorded:
        body(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    query, key, value = split_heads(torch.cat(recorded["qkv"]), model.config.n_head)
    (attended,) = split_heads(torch.cat(recorded["attended"]), model.config.n_head, parts=1)
    after = zip(recorded["after attention"], recorded["after mlp"], strict=True)
    return Trace(
        token_embedding=recorded["token"][0][0],
        position_embedding=recorded["position"][0].reshape(len(ids), -1),
        query=query,
        key=key,
        value=value,
        attended=attended,
        attention_output=torch.cat(recorded["attention"]),
        mlp_output=torch.cat(recorded["mlp"]),
        residual=torch.cat([recorded["embedded"][0], *(place for both in after for place in both)]),
        final=recorded["final"][0][0],
    )


def blocks_of(model: GPTForCausalLM | GPTDoubleHeadsModel) -> list[GPTBlock]:
    return cast("list[GPTBlock]", list(model.transformer.h))


def _points(block: GPTBlock) -> tuple[Point, ...]:
    """Return the points of a block; only where the residual stream is read differs between the families."""
    between = Point("after attention", block.ln_2, "input") if block.pre_norm else Point("after attention", block.ln_1)
    return (
        Point("qkv", block.attn.c_attn),
        Point("attended", block.attn.c_proj, "input"),
        Point("attention", block.attn.resid_dropout),
        between,
        Point("mlp", block.mlp),
        Point("after mlp", block),
    )


@contextmanager
def recording(points: Sequence[Point]) -> Iterator[dict[str, list[Tensor]]]:
    """Within this context, append the tensor of each point to the list of its name whenever its module is called."""
    recorded: dict[str, list[Tensor]] = defaultdict(list)

    def hook_of(point: Point) -> Any:
        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            recorded[point.name].append((inputs[0] if point.side == "input" else output).float())

        return keep

    hooks = [point.module.register_forward_hook(hook_of(point)) for point in points]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def split_heads(joined: Tensor, heads: int, parts: int = 3) -> tuple[Tensor, ...]:
    """Split (row, position, parts * n_embd) into `parts` tensors (row, head, position, head_dim)."""
    rows, length, _ = joined.shape
    return joined.view(rows, length, parts, heads, -1).transpose(1, 3).unbind(2)
