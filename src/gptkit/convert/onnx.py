"""ONNX: one graph, with and without a cache, and its weights in a file beside it; run by onnxruntime.

A language model takes `input_ids` (batch, length), `attention_mask` (batch, total), where total = past + length and 0 is
padding on either side, and for each layer N `past_key_values.N.key` and `.value` (batch, head, past, head_dim); without a
cache, past = 0. It returns `logits` (batch, length, vocab) in fp32 and `present.N.key` and `.value`, the next past. These
are the names that Optimum and Transformers.js look for.

A classifier takes `input_ids` and `attention_mask` of (batch, length), with the markers in place; for similarity
(batch, 2, length), for multiple-choice (batch, choice, length). It returns `logits` (batch, label) or (batch, choice).
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedTokenizerBase

from gptkit.console import Console
from gptkit.convert import hf
from gptkit.convert.dtypes import TORCH, cast
from gptkit.convert.proof import Logits
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import GPTConfig, hf_config, read_config
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTModel, GPTPreTrainedModel
from gptkit.tasks.own import write_task as write_task  # beside a classifier

GRAPH, WEIGHTS = "model.onnx", "model.onnx_data"
OPSET = 20  # the first with GPT's tanh GELU; onnxruntime has it since 1.17
PAST, PRESENT = "past_key_values", "present"
INT8 = "int8"
Cache = dict[str, NDArray[Any]]  # keys and values by the name of the input
PREFIX = "model."  # of the names of weights, from the attribute of the two graphs

# --- the graphs, as modules that are traced ---


class Matrix(nn.Module):
    """A linear layer with the weight (in, out), which MatMul takes as it is, and onnxruntime's quantization needs."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(linear.weight.mT), linear.bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ self.weight + self.bias


class GivenCache:
    """What GPT's attention needs of a cache: it joins given keys and values (batch, head, past, head_dim) and new ones."""

    def __init__(self, past: Sequence[torch.Tensor]) -> None:
        self.past, self.present = past, list[torch.Tensor]()

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        key, value = torch.cat((self.past[2 * layer], key), 2), torch.cat((self.past[2 * layer + 1], value), 2)
        self.present += [key, value]
        return key, value


def hidden_states(
    model: GPTModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, cache: GivenCache | None = None
) -> torch.Tensor:
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
    last: torch.Tensor = model.ln_f(hidden)
    return last


class LanguageGraph(nn.Module):
    def __init__(self, model: GPTForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, past: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        cache = GivenCache(past)
        hidden = hidden_states(self.model.transformer, input_ids, attention_mask, cache)
        return self.model.lm_head(hidden).float(), *cache.present


class ClassifierGraph(nn.Module):
    def __init__(self, model: GPTDoubleHeadsModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, label or choice) of ids (batch, length) or (batch, sequence, length)."""
        if input_ids.ndim == 2:
            input_ids, attention_mask = input_ids[:, None], attention_mask[:, None]
        ids, mask = input_ids.flatten(0, 1), attention_mask.flatten(0, 1)
        hidden = hidden_states(self.model.transformer, ids, mask).unflatten(0, input_ids.shape[:2])
        extract = (attention_mask * torch.arange(input_ids.shape[2])).argmax(2)  # of each sequence's last token
        return self.model.classify(hidden, extract).reshape(input_ids.shape[0], -1)


# --- writing ---


def head_obstacle(model: GPTDoubleHeadsModel) -> None:
    """Every head can be held."""


def refuse(model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, dtype: str) -> None:
    """Every model can be held."""


def write(
    model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, dtype: str, console: Console
) -> None:
    """Write the graph, its weights, config.json and the tokenizer; one tensor at a time is copied, except for int8.

    int8 are the matrices of the layers and the embeddings, by onnxruntime's dynamic quantization, which holds the whole
    model again in fp32.
    """
    with _silence(), tempfile.TemporaryDirectory(dir=folder) as temporary:
        graph = _with_weights(model, "f32" if dtype == INT8 else dtype)
        if dtype == INT8:
            graph = _quantized(graph, Path(temporary))
        onnx_ir.save(graph, folder / GRAPH, external_data=WEIGHTS)
    (folder / "config.json").write_text(_config(model).to_json_string(), encoding="utf-8")
    if tokenizer is not None:
        hf.write_tokenizer(tokenizer, folder, console)


def _with_weights(model: GPTPreTrainedModel, dtype: str) -> onnx_ir.Model:
    """Return the graph of a model with its weights, each of which is converted when it is saved."""
    graph, state, transposed = _traced(model, TORCH[dtype]), model.state_dict(), _linear_layers(model)

    def stored(name: str) -> onnx_ir.Tensor:
        tensor = state[name].mT if name.removesuffix(".weight") in transposed else state[name]
        return onnx_ir.tensor(cast(name, tensor, dtype).contiguous().numpy())

    for name, value in graph.graph.initializers.items():
        if name.startswith(PREFIX):
            read = partial(stored, name.removeprefix(PREFIX))
            value.const_value = onnx_ir.LazyTensor(read, value.dtype, value.shape, name=name)
    return graph


def _traced(model: GPTPreTrainedModel, dtype: torch.dtype) -> onnx_ir.Model:
    """Return the graph of a model; in place of each weight stands a number that takes no memory."""
    config = GPTConfig(**model.config.to_diff_dict(), attn_implementation="eager")  # plain products
    with torch.device("meta"):
        twin = type(model)(config).to(dtype).eval()
    parameters = dict(twin.named_parameters())
    for number, (name, parameter) in enumerate(parameters.items(), start=2):
        # Different numbers, as equal tensors are merged; neither 0 nor 1, which would be optimized away.
        blank = torch.full((), number, dtype=dtype).expand(parameter.shape)
        owner, _, own_name = name.rpartition(".")
        setattr(twin.get_submodule(owner), own_name, nn.Parameter(blank, requires_grad=False))
    twin.tie_weights()
    for block in twin.transformer.h:
        if config.activation_function == "gelu_new":
            block.mlp.act = nn.GELU("tanh")  # one operator; while tracing, ours is the loop that compiles well
    for name, linear in _linear_layers(twin).items():
        twin.set_submodule(name, Matrix(linear))
    module, interface = (
        (ClassifierGraph, _classifier) if isinstance(twin, GPTDoubleHeadsModel) else (LanguageGraph, _language)
    )
    with torch.no_grad():
        program = torch.onnx.export(
            module(twin), **interface(config, dtype), opset_version=OPSET, dynamo=True, verbose=False
        )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # which names files of this machine
    return program.model


def _linear_layers(model: GPTPreTrainedModel) -> dict[str, nn.Linear]:
    """Return the layers whose weights the graph has as (in, out): all but a head that shares its weight."""
    shared = {"lm_head"} if model.config.tie_word_embeddings else set()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name: layer for name, layer in layers.items() if name not in shared}


# Sizes of the example inputs: any but 0 and 1, which would be taken as constants.
BATCH, CHOICES, LENGTH, CACHED = 2, 4, 5, 3


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


def _classifier(config: GPTConfig, dtype: torch.dtype) -> dict[str, Any]:
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


def _quantized(graph: onnx_ir.Model, folder: Path) -> onnx_ir.Model:
    """Return the graph with int8 weights, which stay in a file in `folder`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole, quantized = folder / "whole.onnx", folder / "quantized.onnx"
    onnx_ir.save(graph, whole, external_data="whole.onnx_data")
    quantize_dynamic(whole, quantized, per_channel=True, weight_type=QuantType.QInt8, use_external_data_format=True)
    return onnx_ir.load(quantized)


def _config(model: GPTPreTrainedModel) -> Any:
    """Return the configuration to write: for a language model that transformers has, its own."""
    if not isinstance(model, GPTDoubleHeadsModel):
        with suppress(InputError):
            return hf_config(model.config)
    return model.config


@contextmanager
def _silence() -> Iterator[None]:
    """Within this context neither Python's warnings nor log lines below errors are shown: none of them is for users."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


# --- reading back ---


def open_peer(folder: Path) -> OnnxPeer:
    """Return onnxruntime with the graph, on the CPU; ImportError if it is not installed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])
    return OnnxPeer(session, folder, version=onnxruntime.__version__)


class OnnxPeer:
    """A graph in onnxruntime, one sequence at a time, with the tokenizer.json beside it if there is one."""

    name = "onnxruntime"

    def __init__(self, session: Any, folder: Path, *, version: str) -> None:
        self.session, self.version = session, version
        self.config = read_config(folder / "config.json")
        file = folder / "tokenizer.json"
        self.tokenizer = Tokenizer.from_file(str(file)) if file.exists() else None

    def encode(self, text: str) -> list[int] | None:
        if self.tokenizer is None:
            return None
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        if self.config.format is None:
            return ids
        return [int(self.config.start_token_id or 0), *ids, int(self.config.extract_token_id or 0)]

    def logits(self, ids: Sequence[int]) -> Logits:
        given = np.array([ids])
        if self.config.format is None:
            return self.step(given, np.ones_like(given))[0][0]
        if self.config.format == "similarity":  # twice the same text
            given = np.array([[ids, ids]])
        elif self.config.format == "multiple-choice":
            given = np.array([[ids]])
        [logits] = self.session.run(["logits"], {"input_ids": given, "attention_mask": np.ones_like(given)})
        return logits

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        chosen: list[int] = []
        given, past = np.array([ids]), None
        for length in range(len(ids), len(ids) + count):
            logits, past = self.step(given, np.ones((1, length), np.int64), past)
            given = logits[:, -1:].argmax(2)
            chosen.append(int(given.item()))
        return chosen

    def step(self, ids: NDArray[np.int64], mask: NDArray[np.int64], past: Cache | None = None) -> tuple[Logits, Cache]:
        """Return logits (batch, length, vocab) of ids (batch, length) after a cache, and the next cache."""
        if past is None:
            past = {input.name: self._nothing(input, len(ids)) for input in self.session.get_inputs()[2:]}
        logits, *present = self.session.run(None, {"input_ids": ids, "attention_mask": mask, **past})
        return logits, dict(zip(past, present, strict=True))

    @staticmethod
    def _nothing(input: Any, batch: int) -> NDArray[Any]:
        _, heads, _, head_dim = input.shape
        return np.zeros((batch, heads, 0, head_dim), np.float16 if "float16" in input.type else np.float32)
