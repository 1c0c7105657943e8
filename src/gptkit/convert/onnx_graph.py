"""The ONNX graph of a model, traced by torch; it serves with and without a cache.

A language model takes input_ids (batch, length), attention_mask (batch, total) and, for each layer N,
past_key_values.N.key and .value (batch, head, past, head_dim), where total = past + length. The mask is 0 for padding
on either side. It returns logits (batch, length, vocab) in fp32, and present.N.key and .value, which are the next past;
the first past is empty. Optimum and Transformers.js look for these names.

A classifier takes input_ids and attention_mask (batch, length), with the markers in place; for similarity (batch, 2,
length), for multiple-choice (batch, choice, length). It returns logits (batch, label) or (batch, choice).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import onnx_ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from gptkit.convert.dtypes import TORCH, cast
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.loading import State
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTModel, GPTPreTrainedModel

OPSET = 20  # the first with GELU
PAST, PRESENT = "past_key_values", "present"
PREFIX = "model."  # of the names of weights, from the attribute of the two graphs
# Sizes of the example inputs: any but 0 and 1, which would be taken as constants.
BATCH, CHOICES, LENGTH, CACHED = 2, 4, 5, 3


class Matrix(nn.Module):
    """A linear layer with the weight (in, out), which MatMul takes as it is, and onnxruntime's quantization needs."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(linear.weight.mT), linear.bias

    def forward(self, hidden: Tensor) -> Tensor:
        product = hidden @ self.weight
        return product if self.bias is None else product + self.bias


class GivenCache:
    """What attention needs of a cache: it puts new keys and values (batch, head, length, head_dim) after given ones."""

    def __init__(self, past: Sequence[Tensor]) -> None:
        self.past, self.present = past, list[Tensor]()

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        key, value = torch.cat((self.past[2 * layer], key), 2), torch.cat((self.past[2 * layer + 1], value), 2)
        self.present += [key, value]
        return key, value


def hidden_states(
    model: GPTModel, input_ids: Tensor, attention_mask: Tensor, cache: GivenCache | None = None
) -> Tensor:
    """Return the last hidden states (batch, length, n_embd) of input_ids (batch, length) after `cache`.

    attention_mask (batch, past + length). Positions count the unmasked tokens. A query always sees itself, so that no
    row of a softmax is empty where the padding is.
    """
    total, length = attention_mask.shape[1], input_ids.shape[1]
    past = 0 if cache is None else cache.past[0].shape[2]
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)[:, past:]  # (batch, length)
    keys, queries = torch.arange(total), torch.arange(length)[:, None] + past
    is_seen = (keys < queries) & attention_mask.bool()[:, None, None] | (keys == queries)
    hidden = model.wte(input_ids) + model.wpe(positions)
    mask = torch.where(is_seen, 0.0, -torch.inf).to(hidden.dtype)  # (batch, 1, query, key)
    for block in model.h:
        hidden = block(hidden, attention_mask=mask, past_key_values=cache)
    last: Tensor = model.ln_f(hidden)
    return last


class LanguageGraph(nn.Module):
    def __init__(self, model: GPTForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past: Sequence[Tensor]) -> tuple[Tensor, ...]:
        cache = GivenCache(past)
        hidden = hidden_states(self.model.transformer, input_ids, attention_mask, cache)
        return self.model.lm_head(hidden).float(), *cache.present


class ClassifierGraph(nn.Module):
    def __init__(self, model: GPTDoubleHeadsModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits (batch, label or choice) of ids (batch, length) or (batch, sequence, length)."""
        if input_ids.ndim == 2:
            input_ids, attention_mask = input_ids[:, None], attention_mask[:, None]
        ids, mask = input_ids.flatten(0, 1), attention_mask.flatten(0, 1)
        hidden = hidden_states(self.model.transformer, ids, mask).unflatten(0, input_ids.shape[:2])
        extract = (attention_mask * torch.arange(input_ids.shape[2])).argmax(2)  # of each sequence's last token
        return self.model.classify(hidden, extract, attention_mask > 0).reshape(input_ids.shape[0], -1)


def _traced(model: GPTPreTrainedModel, dtype: torch.dtype) -> torch.onnx.ONNXProgram:
    """Return the graph as it was traced; in place of its weights are zeros that take no memory."""
    config = GPTConfig(**model.config.to_diff_dict())
    config._attn_implementation = "eager"  # plain products
    with torch.device("meta"):
        twin: Any = type(model)(config).eval()  # type: ignore[no-untyped-call]
    for name, parameter in dict(twin.named_parameters()).items():
        owner, _, own_name = name.rpartition(".")
        zeros = torch.zeros((), dtype=dtype).expand(parameter.shape)
        setattr(twin.get_submodule(owner), own_name, nn.Parameter(zeros, requires_grad=False))
    twin.tie_weights()
    for block in twin.transformer.h:
        if config.activation_function == "gelu_new":
            block.mlp.act = nn.GELU("tanh")  # one operator; while tracing, ours is the loop that compiles well
    for name, linear in _linear_layers(twin).items():
        twin.set_submodule(name, Matrix(linear))
    is_classifier = isinstance(twin, GPTDoubleHeadsModel)
    module = ClassifierGraph(twin) if is_classifier else LanguageGraph(twin)
    interface = _classifier(config) if is_classifier else _language(config, dtype)
    with torch.no_grad():
        program = torch.onnx.export(
            module, **interface, opset_version=OPSET, dynamo=True, optimize=False, verbose=False
        )
    assert program is not None
    return program


def _linear_layers(model: GPTPreTrainedModel) -> dict[str, nn.Linear]:
    """Return the layers whose weights the graph has as (in, out): all but a head that shares its weight."""
    shared = {"lm_head"} if model.config.tie_word_embeddings else set()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name: layer for name, layer in layers.items() if name not in shared}


def _language(config: GPTConfig, dtype: torch.dtype) -> dict[str, Any]:
    """Return example inputs of a language model, which of their axes vary, and the names of inputs and outputs."""
    batch, length, past, total = map(torch.export.Dim, ("batch", "length", "past", "total"))
    names = [f"{layer}.{part}" for layer in range(config.n_layer) for part in ("key", "value")]
    shape = (BATCH, config.n_head, CACHED, config.n_embd // config.n_head)
    ids = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    mask = torch.ones(BATCH, CACHED + LENGTH, dtype=torch.long)
    return {
        "args": (ids, mask, [torch.zeros(shape, dtype=dtype) for _ in names]),
        "dynamic_shapes": ({0: batch, 1: length}, {0: batch, 1: total}, [{0: batch, 2: past} for _ in names]),
        "input_names": ["input_ids", "attention_mask", *(f"{PAST}.{name}" for name in names)],
        "output_names": ["logits", *(f"{PRESENT}.{name}" for name in names)],
    }


def _classifier(config: GPTConfig) -> dict[str, Any]:
    """Return the same for a classifier, whose inputs depend on the format."""
    sequences = {"similarity": (2,), "multiple-choice": (CHOICES,)}.get(str(config.format), ())
    ids = torch.zeros(BATCH, *sequences, LENGTH, dtype=torch.long)
    axes = {0: torch.export.Dim("batch"), ids.ndim - 1: torch.export.Dim("length")}
    if config.format == "multiple-choice":
        axes[1] = torch.export.Dim("choice")
    return {
        "args": (ids, torch.ones_like(ids)),
        "dynamic_shapes": (axes, axes),
        "input_names": ["input_ids", "attention_mask"],
        "output_names": ["logits"],
    }


def graph_of(model: GPTPreTrainedModel, state: State, dtype: str) -> onnx_ir.Model:
    """Return the graph of a model whose weights are in `state`, from which each is converted when it is read."""
    program, transposed = _traced(model, TORCH[dtype]), set(_linear_layers(model))

    def stored(name: str) -> onnx_ir.TensorProtocol:
        tensor = state[name].mT if name.removesuffix(".weight") in transposed else state[name]
        return onnx_ir.tensor(cast(name, tensor, dtype).contiguous().numpy())

    for name, value in program.model.graph.initializers.items():
        if name.startswith(PREFIX):
            assert value.dtype is not None
            assert value.shape is not None
            read = partial(stored, name.removeprefix(PREFIX))
            value.const_value = onnx_ir.LazyTensor(read, value.dtype, value.shape, name=name)
    program.optimize()  # not before, as it computes with small weights and merges equal ones
    ClearMetadataAndDocStringPass()(program.model)  # which names files of this machine
    return program.model
