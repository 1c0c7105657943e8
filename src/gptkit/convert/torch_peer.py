"""Our own models and those of transformers as peers of a proof: in fp32, whatever dtype their weights are stored in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

import gptkit
from gptkit.convert.proof import Logits
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTPreTrainedModel
from gptkit.text.tokenizers.encoding import encode_pieces

OURS = "gptkit"
Encode = Callable[[str], list[int]]
Forward = Callable[[Tensor], Tensor]


class TorchPeer:
    """A model in eval mode; `forward` returns logits (1, position, vocab) of ids (1, position), or (1, label)."""

    def __init__(
        self, model: PreTrainedModel, encode: Encode | None, *, name: str, version: str, forward: Forward | None = None
    ) -> None:
        self.name, self.version = name, version
        self._model, self._encode = compute_in_fp32(model).eval(), encode
        self._forward = forward or (lambda ids: model(input_ids=ids).logits[0])
        if model.can_generate():
            model.generation_config = GenerationConfig(pad_token_id=0)  # names no end of text

    def encode(self, text: str) -> list[int] | None:
        return self._encode(text) if self._encode else None

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> Logits:
        logits: Logits = self._forward(torch.tensor([[*ids]])).float().numpy()
        return logits

    @torch.inference_mode()
    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        given = torch.tensor([[*ids]])
        found: Any = self._model.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=count, do_sample=False
        )
        return [int(id) for id in found[0, len(ids) :]]


def own_encoder(config: GPTConfig, tokenizer: PreTrainedTokenizerBase | None) -> Encode | None:
    """Return how our model reads a text, a classifier between its markers; None without a tokenizer."""
    if tokenizer is None:
        return None

    def encode(text: str) -> list[int]:
        ids: list[int] = encode_pieces(tokenizer, [text])[0].tolist()
        if config.format is None:
            return ids
        return [int(config.start_token_id or 0), *ids, int(config.extract_token_id or 0)]

    return encode


def own_peer(model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> TorchPeer:
    """Return our own model as a peer; a classifier that compares two texts reads the same one twice."""
    sequences = 2 if model.config.format == "similarity" else 1

    def classify(ids: Tensor) -> Tensor:
        extract = torch.full((1, sequences), ids.shape[1] - 1)
        logits: Tensor = model(ids[:, None].expand(1, sequences, -1), extract).logits
        return logits.reshape(1, -1)

    encode, forward = own_encoder(model.config, tokenizer), classify if model.config.format is not None else None
    return TorchPeer(model, encode, name=OURS, version=gptkit.__version__, forward=forward)


def compute_in_fp32(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model, which now computes in fp32, holding a layer's weights in fp32 only while it runs.

    So a model of bf16 weights never takes the memory of an fp32 one.
    """
    stored = model.dtype
    if stored == torch.float32:
        return model

    narrow: dict[nn.Parameter, Tensor] = {}  # aside while they are wide: narrowing again would take memory anew

    def widen(layer: nn.Module, _: Any) -> None:
        for parameter in layer.parameters():
            narrow[parameter] = parameter.data
            parameter.data = parameter.data.float()

    def restore(layer: nn.Module, *_: Any) -> None:
        for parameter in layer.parameters():
            parameter.data = narrow.pop(parameter)

    layers: nn.ModuleList = model.get_submodule("transformer.h")  # type: ignore[assignment]  # gpt2's and ours alike
    for layer in layers:
        layer.register_forward_pre_hook(widen)
        layer.register_forward_hook(restore)
    inside = {id(parameter) for parameter in layers.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in inside:
            parameter.data = parameter.data.float()
    return model
