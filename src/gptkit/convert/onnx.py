"""ONNX, written and computed by onnxruntime: a graph that serves with and without a cache, and a file of weights."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

import gptkit
from gptkit.console import Console
from gptkit.convert import hf
from gptkit.convert.formats import Exporter
from gptkit.convert.onnx_graph import graph_of
from gptkit.convert.onnx_int8 import quantize
from gptkit.convert.proof import Logits
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import hf_config, read_config
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTPreTrainedModel
from gptkit.model_files import MARKER_FIELDS
from gptkit.report.text import code_block, escape_markdown

GRAPH, WEIGHTS = "model.onnx", "model.onnx_data"
INT8 = "int8"
Cache = dict[str, NDArray[Any]]  # keys and values by the name of the input


# --- writing ---


def refuse(model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, dtype: str) -> None:
    """Raise InputError for markers that the tokenizer has no place for."""
    hf.refuse_markers(model, tokenizer)


def write(
    model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, dtype: str, console: Console
) -> None:
    """Write the graph, its weights, config.json and the tokenizer; one tensor at a time is copied.

    int8 are the matrices of the layers and the embeddings.
    """
    state = model.state_dict()
    with _silence():
        graph = graph_of(model, state, "f32" if dtype == INT8 else dtype)
        if dtype == INT8:
            quantize(graph.graph)
        gc.collect()  # what torch traced
        onnx_ir.save(graph, folder / GRAPH, external_data=WEIGHTS)
    state.clear()  # torch's exporter keeps parts of the graph, which would keep the weights in memory
    (folder / "config.json").write_text(_config(model).to_json_string(), encoding="utf-8")
    if tokenizer is not None:
        hf.write_tokenizer(tokenizer, model, folder, console)
    (folder / "README.md").write_text(_card(model, tokenizer is not None), encoding="utf-8")


EXAMPLES = {  # by format, None for a language model; those of several sequences get an axis more
    None: "['a text', 'another one']",
    "classification": "['a text', 'another one']",
    "entailment": "[('a premise', 'a hypothesis')]",
    "similarity": "[('a text', 'another one'), ('another one', 'a text')]",
    "multiple-choice": "[('a text', 'an ending'), ('a text', 'another one')]",
}


def _card(model: GPTPreTrainedModel, has_tokenizer: bool) -> str:
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
    kind, notes = "text-generation", [f"It reads at most {config.n_positions:,} tokens."]
    if not has_tokenizer:
        notes += ["There is no tokenizer.json here: copy the one that the model was trained with."]
    if config.format is None:
        code += [
            "last = inputs['attention_mask'].sum(1) - 1",
            "following = logits[np.arange(len(texts)), last].argmax(-1)  # to go on, pass it with present as the past",
            "print(tokenizer.decode_batch(following[:, None]))",
        ]
    else:
        labels = [str(label) for label in (config.id2label or {}).values()]
        kind, code = "text-classification", [line for line in code if "past" not in line]
        code += [f"print([{labels}[best] for best in logits.argmax(-1)])"] if len(labels) > 1 else ["print(logits)"]
        start, delimiter, extract = (getattr(config, name) for name in MARKER_FIELDS)
        notes += [f"Start, delimiter and extract tokens are {start}, {delimiter} and {extract}."]
        notes += [f"Outputs: {escape_markdown(', '.join(labels))}."]
    return "\n".join(
        [
            f"---\nlibrary_name: onnx\npipeline_tag: {kind}\ntags: [gptkit]\n---\n",
            f"# A GPT for onnxruntime\n\n{model.num_parameters():,} parameters.",
            f"Written by gptkit {gptkit.__version__}.",
            f"{GRAPH} is the graph, {WEIGHTS} beside it holds the weights.\n",
            f"## Use\n\n{code_block(chr(10).join(code), 'python')}\n\n{' '.join(notes)}\n",
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
    options.add_session_config_entry("session.disable_prepacking", "1")  # the weights stay mapped from their file
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
        given = np.array([ids])  # (batch, length)
        if self.config.format is None:
            logits: Logits = self.step(given, np.ones_like(given))[0][0]
            return logits
        if self.config.format == "similarity":  # twice the same text
            given = np.array([[ids, ids]])
        elif self.config.format == "multiple-choice":
            given = np.array([[ids]])
        logits = self.session.run(None, {"input_ids": given, "attention_mask": np.ones_like(given)})[0]
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


EXPORTER = Exporter(write, open_peer, refuse, head_obstacle=lambda model: None, holds_task=True)
