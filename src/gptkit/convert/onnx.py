"""ONNX: a graph that serves with and without a cache, and a file of weights; onnxruntime computes it.

A language model takes input_ids (batch, length), attention_mask (batch, total) and, for each layer N,
past_key_values.N.key and .value (batch, head, past, head_dim), where total = past + length. The mask is 0 for padding
on either side. It returns logits (batch, length, vocab) in fp32, and present.N.key and .value, which are the next past;
the first past is empty. Optimum and Transformers.js look for these names.

A classifier takes input_ids and attention_mask (batch, length), with the markers in place; for similarity (batch, 2,
length), for multiple-choice (batch, choice, length). It returns logits (batch, label) or (batch, choice).
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
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

import gptkit
from gptkit.console import Console
from gptkit.convert import hf
from gptkit.convert.dtypes import TORCH, cast
from gptkit.convert.proof import Logits
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import GPTConfig, hf_config, read_config
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTModel, GPTPreTrainedModel
from gptkit.report.text import code_block
from gptkit.tasks.own import write_task as write_task  # beside a classifier

GRAPH, WEIGHTS = "model.onnx", "model.onnx_data"
OPSET = 20  # the first with GELU
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
        product = hidden @ self.weight
        return product if self.bias is None else product + self.bias


class GivenCache:
    """What attention needs of a cache: it puts new keys and values (batch, head, length, head_dim) after given ones."""

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


def head_obstacle(_: GPTDoubleHeadsModel) -> None:
    """Every classifier is kept."""


def refuse(model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, dtype: str) -> None:
    """Raise InputError for markers that the tokenizer has no place for, and for int8 without onnxruntime."""
    hf.refuse_markers(model, tokenizer)
    if dtype == INT8 and find_spec("onnxruntime") is None:
        message = "int8 is written by onnxruntime, which is not installed"
        raise InputError(message, where="--dtype int8", fix="pip install 'gptkit[export]'")


def write(
    model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, dtype: str, console: Console
) -> None:
    """Write the graph, its weights, config.json and the tokenizer; one tensor at a time is copied, except for int8.

    int8 are the matrices of the layers and the embeddings, by onnxruntime's dynamic quantization, which holds the whole
    model again in fp32.
    """
    with _silence(), tempfile.TemporaryDirectory(dir=folder) as temporary:
        graph = _graph(model, "f32" if dtype == INT8 else dtype)
        if dtype == INT8:
            graph = _quantized(graph, Path(temporary))
        onnx_ir.save(graph, folder / GRAPH, external_data=WEIGHTS)
    (folder / "config.json").write_text(_config(model).to_json_string(), encoding="utf-8")
    if tokenizer is not None:
        hf.write_tokenizer(tokenizer, model, folder, console)
    (folder / "README.md").write_text(_card(model), encoding="utf-8")


def _graph(model: GPTPreTrainedModel, dtype: str) -> onnx_ir.Model:
    """Return the graph of a model with its weights, each of which is converted when it is read."""
    program, state, transposed = _traced(model, TORCH[dtype]), model.state_dict(), _linear_layers(model)

    def stored(name: str) -> onnx_ir.Tensor:
        tensor = state[name].mT if name.removesuffix(".weight") in transposed else state[name]
        return onnx_ir.tensor(cast(name, tensor, dtype).contiguous().numpy())

    for name, value in program.model.graph.initializers.items():
        if name.startswith(PREFIX):
            read = partial(stored, name.removeprefix(PREFIX))
            value.const_value = onnx_ir.LazyTensor(read, value.dtype, value.shape, name=name)
    program.optimize()  # not before, as it computes with small weights and merges equal ones
    ClearMetadataAndDocStringPass()(program.model)  # which names files of this machine
    return program.model


def _traced(model: GPTPreTrainedModel, dtype: torch.dtype) -> torch.onnx.ONNXProgram:
    """Return the graph as it was traced; in place of its weights are zeros that take no memory."""
    config = GPTConfig(**model.config.to_diff_dict(), attn_implementation="eager")  # plain products
    with torch.device("meta"):
        twin = type(model)(config).to(dtype).eval()
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


def _quantized(graph: onnx_ir.Model, folder: Path) -> onnx_ir.Model:
    """Return the graph with int8 weights, which stay in a file in `folder`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole, quantized = folder / "whole.onnx", folder / "quantized.onnx"
    onnx_ir.save(graph, whole, external_data="whole.onnx_data")
    quantize_dynamic(whole, quantized, per_channel=True, weight_type=QuantType.QInt8, use_external_data_format=True)
    return onnx_ir.load(quantized)


EXAMPLES = {  # by format, None for a language model; those of several sequences get an axis more
    None: "['a text', 'another one']",
    "classification": "['a text', 'another one']",
    "entailment": "[('a premise', 'a hypothesis')]",
    "similarity": "[('a text', 'another one'), ('another one', 'a text')]",
    "multiple-choice": "[('a text', 'an ending'), ('a text', 'another one')]",
}


def _card(model: GPTPreTrainedModel) -> str:
    """Return a model card that says how to run the graph."""
    config = model.config
    axis = "[None]" if config.format in ("similarity", "multiple-choice") else ""
    code = [
        "import numpy as np",
        "import onnxruntime",
        "from tokenizers import Tokenizer",
        "",
        "tokenizer = Tokenizer.from_file('tokenizer.json')",
        "tokenizer.enable_padding()",
        f"texts = tokenizer.encode_batch({EXAMPLES[config.format]})",
        f"inputs = {{'input_ids': np.array([text.ids for text in texts]){axis}}}",
        f"inputs['attention_mask'] = np.array([text.attention_mask for text in texts]){axis}",
        f"session = onnxruntime.InferenceSession('{GRAPH}')",
        "for past in session.get_inputs()[2:]:  # an empty cache",
        "    dtype = np.float16 if 'float16' in past.type else np.float32",
        "    inputs[past.name] = np.zeros((len(texts), past.shape[1], 0, past.shape[3]), dtype)",
        "logits, *present = session.run(None, inputs)",
    ]
    if config.format is not None:
        code = [line for line in code if "past" not in line]
    kind = "text-generation" if config.format is None else "text-classification"
    return "\n".join(
        [
            f"---\nlibrary_name: onnx\npipeline_tag: {kind}\ntags: [gptkit]\n---\n",
            f"# A GPT for onnxruntime\n\n{model.num_parameters():,} parameters.",
            f"Written by gptkit {gptkit.__version__}.",
            f"{GRAPH} is the graph, {WEIGHTS} beside it holds the weights.\n",
            f"## Use\n\n{code_block(chr(10).join(code), 'python')}\n",
        ]
    )


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
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=self.config.format is not None).ids
        return ids

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
