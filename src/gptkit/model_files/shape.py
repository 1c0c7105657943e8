"""What a config.json may say: the fields of a GPT, GPT-2's where nothing is said, and the tensors that they ask for.

No `from __future__ import annotations` here: `strict` reads the field types as objects, not as strings.
"""

import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from gptkit.errors import InputError

Activation = Literal["gelu_new", "gelu"]
Format = Literal["classification", "entailment", "similarity", "multiple-choice"]

MARKER_FIELDS = ("start_token_id", "delimiter_token_id", "extract_token_id")
# What a fine-tuned model's config.json says beyond a language model's; its `id2label` is transformers' own.
HEAD_FIELDS = ("task", "format", *MARKER_FIELDS, "classifier_dropout")
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# What says nothing about the model: its type is known by then, who loads weights chooses their dtype, and a preset
# names where its sizes come from.
SILENT_KEYS = frozenset({"model_type", "dtype", "source"})
# What transformers adds when it saves; its other switches would change what a forward pass returns.
TRANSFORMERS_TYPES: dict[str, Any] = {
    "architectures": list[str] | None,
    "transformers_version": str | None,
    "id2label": dict[str, str],
    "label2id": dict[str, int],
    "problem_type": type(None),
}


@dataclass(kw_only=True)
class GPTShape:
    """The sizes of a GPT and all else that its config.json says; see GPTConfig for what each field means."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    pre_norm: bool = True
    activation_function: Activation = "gelu_new"
    embd_pdrop: float | int = 0.1
    attn_pdrop: float | int = 0.1
    resid_pdrop: float | int = 0.1
    layer_norm_epsilon: float | int = 1e-5
    initializer_range: float | int = 0.02
    position_initializer_range: float | int | None = None
    tie_word_embeddings: bool = True
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    task: str | None = None
    format: Format | None = None
    start_token_id: int | None = None
    delimiter_token_id: int | None = None
    extract_token_id: int | None = None
    classifier_dropout: float | int = 0.1

    @property
    def inner_width(self) -> int:
        """The width between the two matrices of an MLP."""
        return self.n_inner or 4 * self.n_embd

    def validate_sizes(self) -> None:
        """Raise ValueError for sizes that no model can have."""
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")

    def validate_rates(self) -> None:
        """Raise ValueError for dropouts that are no probabilities and scales that are not positive."""
        for name in ("embd_pdrop", "attn_pdrop", "resid_pdrop", "classifier_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("layer_norm_epsilon", "initializer_range", "position_initializer_range"):
            scale = getattr(self, name)
            if scale is not None and not 0 < scale <= sys.float_info.max:
                raise ValueError(f"{name} must be positive and finite, got {scale}")

    def validate_head(self) -> None:
        """Raise ValueError for a format whose sequences could not be written: its markers are three free ids."""
        if self.format is None:
            return
        markers = [getattr(self, name) for name in MARKER_FIELDS]
        for name, marker in zip(MARKER_FIELDS, markers, strict=True):
            if marker is None or not 0 <= marker < self.vocab_size:
                raise ValueError(f"{name} must be an id below vocab_size ({self.vocab_size}), got {marker}")
        if len(set(markers)) < len(markers):
            raise ValueError("start_token_id, delimiter_token_id and extract_token_id must differ")


OWN_KEYS = frozenset(field.name for field in fields(GPTShape))

# --- transformers' gpt2 and openai-gpt ---

GELUS: dict[str, Activation] = {"gelu_new": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "gelu": "gelu"}
GPT2_SWITCHES = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
OPENAI_GPT_GELU = "gelu"  # which is the tanh form there
SHARED_KEYS = OWN_KEYS - {  # what they call by the same name
    *("n_inner", "pre_norm", "activation_function", "position_initializer_range", "use_cache"),
    *HEAD_FIELDS,
}


def translated(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of a GPTShape for what a gpt2 or openai-gpt calls by other names.

    InputError for what has no counterpart, KeyError where its activation is not given.
    """
    if model_type(values) == "openai-gpt":
        if values["afn"] != OPENAI_GPT_GELU:
            raise unfit(f"afn {values['afn']!r} has no counterpart", where)
        return {"pre_norm": False}
    for key, needed in GPT2_SWITCHES.items():
        if values.get(key, needed) is not needed:
            raise unfit(f"{key} = {str(not needed).lower()} has no counterpart", where)
    activation = values["activation_function"]
    if activation not in GELUS:
        raise unfit(f"activation_function {activation!r} has no counterpart", where)
    return {"n_inner": values.get("n_inner"), "activation_function": GELUS[activation]}


def unfit(message: str, where: str = "config.json") -> InputError:
    """Return the error for a model of one family that the other cannot express."""
    return InputError(message, where=where, fix="such a model cannot be converted")


def model_type(raw: Mapping[str, Any]) -> str:
    """Return whose config.json this is; one that does not say is ours."""
    return str(raw.get("model_type", "gptkit"))


def ids_outside(raw: Mapping[str, Any], vocab_size: Any) -> Iterator[tuple[str, int]]:
    """Yield the special tokens (key, id) that lie outside the vocabulary."""
    for key in SPECIAL_IDS:
        ids = raw.get(key)
        for id in ids if isinstance(ids, list) else [ids]:
            if isinstance(id, int) and isinstance(vocab_size, int) and not 0 <= id < vocab_size:
                yield key, id


# --- tensors ---

LAYER = re.compile(r"transformer\.h\.(\d+)\.")
MISFIT_FIX = "the weights do not belong to this config"


def tensor_shapes(shape: GPTShape, names: Collection[str], where: str) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of GPTForCausalLM's state dict, in its order; matrices are (out, in).

    InputError where the `names` of the tensors at hand show another number of layers, before as many as the config
    says are listed.
    """
    layers = len({match[1] for name in names if (match := LAYER.match(name))})
    if layers != shape.n_layer:
        message = f"n_layer is {shape.n_layer:,}, the file has {layers:,} layers"
        raise InputError(message, where=where, fix=MISFIT_FIX)
    width = shape.n_embd
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (shape.vocab_size, width),
        "transformer.wpe.weight": (shape.n_positions, width),
    }
    for layer in range(shape.n_layer):
        for name, rows, columns in (
            ("ln_1", width, ()),
            ("attn.c_attn", 3 * width, (width,)),
            ("attn.c_proj", width, (width,)),
            ("ln_2", width, ()),
            ("mlp.c_fc", shape.inner_width, (width,)),
            ("mlp.c_proj", width, (shape.inner_width,)),
        ):
            shapes[f"transformer.h.{layer}.{name}.weight"] = (rows, *columns)
            shapes[f"transformer.h.{layer}.{name}.bias"] = (rows,)
    if shape.pre_norm:
        shapes |= {"transformer.ln_f.weight": (width,), "transformer.ln_f.bias": (width,)}
    return shapes | {"lm_head.weight": (shape.vocab_size, width)}
