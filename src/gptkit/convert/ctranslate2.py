"""CTranslate2's model directory: model.bin, its vocabulary of strings, and the tokenizer beside it.

Written through CTranslate2's own specification of a decoder, which holds GPT-1's post-norm too; its converter from
transformers would take gpt2 alone, from a second copy of the weights.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from ctranslate2.specs import TransformerDecoderModelSpec
from ctranslate2.specs.common_spec import Activation
from ctranslate2.specs.model_spec import PyTorchVariable, visit_spec
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gptkit.console import Console
from gptkit.convert import hf
from gptkit.convert.formats import Exporter
from gptkit.convert.proof import Logits
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.text.tokenizers.files import CONFIG_FILE
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer
from gptkit.text.tokenizers.loading import tokenizer_in

WEIGHTS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "int8": "int8_float32"}  # what CTranslate2 says
LARGEST = 127  # number in int8; -128 is not used
ACTIVATIONS = {"gelu_new": Activation.GELUTanh, "gelu": Activation.GELU}


def refuse(model: GPTForCausalLM, tokenizer: PreTrainedTokenizerBase | None, dtype: str) -> None:
    """Raise InputError for a tokenizer without an end of text, which CTranslate2's configuration must name."""
    end_of_text(model, tokenizer)


def end_of_text(model: GPTForCausalLM, tokenizer: PreTrainedTokenizerBase | None) -> int:
    """Return the id at which generation stops: the tokenizer's; without one the model's, or else the last."""
    if tokenizer is not None:
        return separator_id(tokenizer)
    ids = model.config.eos_token_id
    return model.config.vocab_size - 1 if ids is None else int(ids[0] if isinstance(ids, list) else ids)


def write(
    model: GPTForCausalLM, tokenizer: PreTrainedTokenizerBase | None, folder: Path, dtype: str, console: Console
) -> None:
    """Write model.bin, config.json, vocabulary.json and the tokenizer; the model's own weights stay as they are."""
    names = vocabulary(tokenizer, model.config.vocab_size)
    if unnamed := len(names) - (0 if tokenizer is None else len(tokenizer)):
        console.warn(f"{unnamed:,} of {len(names):,} ids have no token: vocabulary.json has {names[-1]} and the like")
    end = names[end_of_text(model, tokenizer)]
    unknown = None if tokenizer is None else tokenizer.unk_token
    spec = specification(model)
    spec.register_vocabulary(names)
    spec.config.bos_token = spec.config.eos_token = end
    spec.config.unk_token = unknown or end  # CTranslate2 would append one of its own, for which there is no row
    spec.config.layer_norm_epsilon = model.config.layer_norm_epsilon
    spec.validate()
    spec.optimize("float32" if dtype == "int8" else WEIGHTS[dtype])
    if dtype == "int8":
        visit_spec(spec, quantize)
    spec.save(str(folder))
    if isinstance(tokenizer, GPT1Tokenizer):
        tokenizer.save_pretrained(folder)  # ours: transformers' own would give other ids
    elif tokenizer is not None:
        hf.write_tokenizer(tokenizer, model, folder, console)


def vocabulary(tokenizer: PreTrainedTokenizerBase | None, size: int) -> list[str]:
    """Return a name of its own for each id below `size`: CTranslate2 would skip a repeated one and shift all others."""
    entries = {} if tokenizer is None else tokenizer.get_vocab()
    pieces = {id: piece for piece, id in entries.items()}
    return [pieces[id] if id in pieces else _unlike(f"<{id}>", entries) for id in range(size)]


def _unlike(name: str, others: Collection[str]) -> str:
    while name in others:
        name = f"<{name}>"
    return name


def specification(model: GPTForCausalLM) -> Any:
    """Return CTranslate2's specification of a decoder, with the model's weights and as yet without a vocabulary."""
    config, state = model.config, model.state_dict()
    weights = {name: LateCast(tensor, tensor.dtype) for name, tensor in state.items()}
    spec = TransformerDecoderModelSpec.from_config(
        config.n_layer, config.n_head, pre_norm=config.pre_norm, activation=ACTIVATIONS[config.activation_function]
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = weights["transformer.wte.weight"]
    decoder.position_encodings.encodings = weights["transformer.wpe.weight"]
    decoder.projection.weight = weights["lm_head.weight"]
    norms = {"transformer.ln_f": decoder.layer_norm} if config.pre_norm else {}
    linears: dict[str, Any] = {}
    for number, layer in enumerate(decoder.layer):
        attention, mlp, block = layer.self_attention, layer.ffn, f"transformer.h.{number}"
        norms |= {f"{block}.ln_1": attention.layer_norm, f"{block}.ln_2": mlp.layer_norm}
        linears |= {f"{block}.attn.c_attn": attention.linear[0], f"{block}.attn.c_proj": attention.linear[1]}
        linears |= {f"{block}.mlp.c_fc": mlp.linear_0, f"{block}.mlp.c_proj": mlp.linear_1}
    for name, norm in norms.items():
        norm.gamma, norm.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]
    for name, linear in linears.items():
        linear.weight, linear.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]  # (out, in), as ours
    return spec


class LateCast(PyTorchVariable):  # type: ignore[misc]
    """A weight that is cast as it is written; CTranslate2's own holds all of them twice."""

    def __init__(self, tensor: Tensor, target: torch.dtype) -> None:
        super().__init__(tensor.detach())
        self.target = target

    @property
    def dtype(self) -> str:
        return str(self.target).removeprefix("torch.")

    def _to(self, dtype: str) -> LateCast:
        return LateCast(self.tensor, getattr(torch, dtype))

    def num_bytes(self) -> int:
        return int(self.tensor.numel()) * self.target.itemsize

    def to_bytes(self) -> memoryview:
        return memoryview(self.tensor.to(self.target).flatten().view(torch.uint8).numpy())


class LateInt8(LateCast):
    """A matrix (row, column) that is quantized as it is written, with CTranslate2's scale of each row."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(tensor, torch.int8)
        smallest, largest = (extreme.float() for extreme in tensor.aminmax(dim=1))
        most = torch.maximum(largest, -smallest)
        most[most == 0] = LARGEST
        most = most.clamp(min=LARGEST / torch.finfo(torch.float32).max)  # with a finite scale
        self.scale = torch.full_like(most, LARGEST) / most  # LARGEST / most would multiply by the reciprocal

    def to_bytes(self) -> memoryview:
        scaled = self.tensor.to(torch.float32, copy=True).mul_(self.scale[:, None])
        return memoryview(scaled.round_().to(torch.int8).flatten().numpy()).cast("B")


def quantize(layer: Any, name: str, value: Any) -> None:
    """Set a weight of a layer's specification, and its scale, to int8 if CTranslate2 has a place for the scale."""
    key = name.rpartition("/")[2]
    if isinstance(value, LateCast) and hasattr(layer, f"{key}_scale"):
        quantized = LateInt8(value.tensor)
        setattr(layer, key, quantized)
        setattr(layer, f"{key}_scale", PyTorchVariable(quantized.scale))


class Peer:
    """CTranslate2 with a directory that `write` made; the tokenizer is the one beside the weights."""

    name, version = "CTranslate2", ctranslate2.__version__

    def __init__(self, folder: Path) -> None:
        ctranslate2.set_log_level(logging.ERROR)  # it warns that a CPU computes f16 and bf16 weights in fp32
        self._folder, self._generator = folder, ctranslate2.Generator(str(folder), device="cpu")
        self._names: list[str] = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        self._ids = {name: id for id, name in enumerate(self._names)}
        self._unknown = self._ids[json.loads((folder / "config.json").read_text(encoding="utf-8"))["unk_token"]]

    def encode(self, text: str) -> list[int] | None:
        """Return the ids that CTranslate2's vocabulary gives to the tokenizer's tokens."""
        if not (self._folder / CONFIG_FILE).is_file():
            return None
        pieces = tokenizer_in(self._folder).tokenize(text, verbose=False)  # says nothing of n_positions
        return [self._ids.get(piece, self._unknown) for piece in pieces]

    def logits(self, ids: Sequence[int]) -> Logits:
        """Return the logits (position, vocab) of at most n_positions ids."""
        logits: Logits = np.asarray(self._generator.forward_batch([list(ids)]), np.float32)[0]
        return logits

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Return the `count` most likely next ids, whatever they are."""
        [result] = self._generator.generate_batch(
            [[self._names[id] for id in ids]], max_length=count, include_prompt_in_result=False, end_token=[]
        )
        next_ids: list[int] = result.sequences_ids[0]
        return next_ids


EXPORTER = Exporter(write, Peer, refuse)
