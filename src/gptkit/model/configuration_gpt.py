"""GPTConfig, the configuration of a GPT-1 or GPT-2 model, and its conversion to and from config.json files.

It reads ours and those of transformers' gpt2 and openai-gpt.
"""

import dataclasses
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import GPT2Config, OpenAIGPTConfig
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging

from gptkit.errors import InputError, suggest
from gptkit.model_files import (
    GELUS,
    GPT,
    HEAD_FIELDS,
    LSTM,
    MASKED,
    OWN_KEYS,
    SHARED_KEYS,
    SILENT_KEYS,
    SPECIAL_IDS,
    TRANSFORMERS_TYPES,
    GPTShape,
    ids_outside,
    model_type,
    translated,
    unfit,
)
from gptkit.system.reading import read_json_object
from gptkit.system.writing import json_text

LABEL_FIELDS = ("id2label", "label2id", "problem_type", "architectures")
FOREIGN: dict[str, type[GPT2Config | OpenAIGPTConfig]] = {"gpt2": GPT2Config, "openai-gpt": OpenAIGPTConfig}


@strict
class GPTConfig(GPTShape, PreTrainedConfig):
    """The configuration of a GPT-1 or GPT-2 model; defaults are GPT-2's.

    `pre_norm=False` is GPT-1: layer norms after the residual sums, none at the end, and no scaled residual projections.
    `n_inner=None` means 4 * n_embd. `position_initializer_range=None` means the family's own value: 0.01 for GPT-2,
    `initializer_range` for GPT-1. `activation_function` is "gelu_new" (OpenAI's tanh form) or "gelu" (the erf form,
    which nanoGPT trains with). Token ids are None until a tokenizer sets them. `task`, `format` and the ids of start,
    delimiter and extract belong to a fine-tuned model; they are saved only with a `format`. `features` says what its
    classifier was trained on: the states of a model that was trained with it ("none"), the last states of a frozen one
    ("last"), or a mix of all its layers' ("mix"); `head` which of them it reads: the extract token's ("extract"), or
    also the mean and the maximum over all tokens ("concat").

    Raises `StrictDataclassError` (huggingface_hub) for a wrong type or an impossible size.
    """

    model_type = GPT
    dropouts: ClassVar[tuple[str, ...]] = ("embd_pdrop", "attn_pdrop", "resid_pdrop")
    keys: ClassVar[frozenset[str]] = OWN_KEYS  # of its config.json, beside transformers' own
    auto_map: ClassVar[dict[str, str]] = {}  # read by TRL; never written, and refused in a config.json
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "classifier_loss", "lm_loss"]
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    def __post_init__(self, **kwargs: Any) -> None:
        if self.position_initializer_range is None:
            self.position_initializer_range = 0.01 if self.pre_norm else self.initializer_range
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    @property
    def family(self) -> str:
        """The kind of model, as a card names it."""
        transformer = "GPT-2 (pre-norm)" if self.pre_norm else "GPT-1 (post-norm)"
        return {LSTM: "An LSTM", MASKED: f"A masked {transformer}"}.get(self.model_type, f"A {transformer}")

    def without_head(self) -> "GPTConfig":
        """Return the configuration of the language model, without the fine-tuned head."""
        values = {key: value for key, value in self.to_diff_dict().items() if key not in (*HEAD_FIELDS, *LABEL_FIELDS)}
        return type(self)(**values)

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the contents of config.json; fields of a head only if the model is fine-tuned."""
        values: dict[str, Any] = super().to_diff_dict()
        hidden = (OWN_KEYS - self.keys).union(HEAD_FIELDS if self.format is None else ())
        return {key: value for key, value in values.items() if key not in hidden}

    def to_json_string(self, use_diff: bool = True) -> str:
        """Return the text of config.json, in which labels are readable in any script."""
        return json_text(json.loads(super().to_json_string(use_diff)), indent=2, sort_keys=True) + "\n"


@strict
class LSTMConfig(GPTConfig):
    """The configuration of the LSTM beside GPT (GPT-1 paper, section 5: one layer of 2,048 units).

    `n_inner` is the number of units of a layer. The paper states neither embedding width, dropout nor initialization:
    those here are ours.
    """

    model_type = LSTM
    dropouts: ClassVar[tuple[str, ...]] = ("embd_pdrop", "resid_pdrop")
    keys: ClassVar[frozenset[str]] = OWN_KEYS - {
        *("n_head", "pre_norm", "activation_function", "attn_pdrop"),
        *("layer_norm_epsilon", "position_initializer_range"),
    }
    n_layer: int = 1
    n_head: int = 1
    n_inner: int | None = 2048
    attn_pdrop: float | int = 0.0


@strict
class MaskedConfig(GPTConfig):
    """The configuration of a GPT without a causal mask that predicts masked tokens, as BERT does.

    `mask_token_id` is the id that stands in the place of a masked token; no text has it.
    """

    model_type = MASKED
    keys: ClassVar[frozenset[str]] = OWN_KEYS | {"mask_token_id"}
    mask_token_id: int | None = None

    def validate_mask(self) -> None:
        """Raise ValueError for a mask token outside the vocabulary."""
        if self.mask_token_id is not None and not 0 <= self.mask_token_id < self.vocab_size:
            raise ValueError(f"mask_token_id must be an id below vocab_size ({self.vocab_size})")


def mask_token_of(config: GPTConfig) -> int | None:
    """Return the mask token of a masked model, None for any other."""
    return config.mask_token_id if isinstance(config, MaskedConfig) else None


CONFIGS: dict[str, type[GPTConfig]] = {GPT: GPTConfig, LSTM: LSTMConfig, MASKED: MaskedConfig}


# --- config.json ---


def read_config(path: Path) -> GPTConfig:
    """Return the configuration a config.json describes, ours or one of transformers' two families."""
    return parse_config(read_json_object(path), str(path))


def parse_config(raw: dict[str, Any], where: str) -> GPTConfig:
    """Return the configuration in the parsed config.json `raw`; an InputError names the file as `where`."""
    if "auto_map" in raw:
        raise InputError("auto_map asks to run code from the model's files", where=where, fix="remove the key")
    if "quantization_config" in raw:
        raise InputError("the weights are quantized", where=where, fix="pass the model before quantization")
    kind = model_type(raw)
    if kind not in CONFIGS and kind not in FOREIGN:
        fix = f"gptkit reads models of type {', '.join([*CONFIGS, *FOREIGN])} alone"
        raise InputError(f"model_type {kind!r} is not supported", where=where, fix=fix)
    try:
        with quiet_transformers():
            if kind in CONFIGS:
                return _parse_own(raw, where, CONFIGS[kind])
            theirs = _known_config(raw)
            return GPTConfig(**_shared(theirs), **translated({"model_type": kind, **vars(theirs)}, where))
    except (StrictDataclassError, ValueError, TypeError, OverflowError) as error:
        reason = str(error).splitlines()[-1].strip().split(": ", 1)[-1]
        reason = re.sub(r"^Field '(\w+)' with value (.*) doesn't match any type in .*", r"\1 cannot be \2", reason)
        raise InputError(reason, where=where, fix="correct the value") from None


def _parse_own(raw: dict[str, Any], where: str, config: type[GPTConfig]) -> GPTConfig:
    for key in raw:
        if key not in config.keys | TRANSFORMERS_TYPES.keys() | SILENT_KEYS:
            alias = config.attribute_map.get(key)
            fix = f"did you mean {alias!r}?" if alias else suggest(key, config.keys)
            raise InputError(f"unknown key {key!r}", where=where, fix=fix)
    labels = raw.get("id2label", {})
    if not isinstance(labels, dict) or not all(key.isdecimal() for key in labels):
        raise InputError("id2label does not map numbers to labels", where=where, fix="correct the value")
    vocab_size = raw.get("vocab_size", config.vocab_size)
    if config is MaskedConfig and raw.get("mask_token_id") is None:
        fix = f"copy the model again; the shape of a new one has model_type {GPT!r}"
        raise InputError("mask_token_id is missing", where=where, fix=fix)
    for key, id in ids_outside(raw, vocab_size):  # transformers would only warn
        message = f"{key} {id} is outside the vocabulary of {vocab_size:,}"
        raise InputError(message, where=where, fix="correct the value, or leave it out")
    return config(**{key: value for key, value in raw.items() if key not in SILENT_KEYS})


def foreign_config(path: Path) -> GPT2Config | OpenAIGPTConfig:
    """Return transformers' configuration of one of their config.json files, with known model fields only.

    Their own reader would also accept keys that make it fetch and run code.
    """
    raw = read_json_object(path)
    parse_config(raw, str(path))
    with quiet_transformers():
        return _known_config(raw)


def hf_config(config: GPTConfig) -> GPT2Config | OpenAIGPTConfig:
    """Return the equivalent transformers configuration; InputError for what that family cannot express."""
    if config.activation_function not in GELUS:
        raise unfit(f"activation_function {config.activation_function!r} does not exist in transformers")
    if config.pre_norm:
        return GPT2Config(**_shared(config), n_inner=config.n_inner, activation_function=config.activation_function)
    if config.n_inner not in (None, 4 * config.n_embd):
        raise unfit(f"n_inner = {config.n_inner}: openai-gpt supports only 4 * n_embd = {4 * config.n_embd}")
    if config.activation_function != "gelu_new":
        raise unfit(f"activation_function {config.activation_function!r}: openai-gpt supports only tanh GELU")
    return OpenAIGPTConfig(**_shared(config))


def _known_config(raw: dict[str, Any]) -> GPT2Config | OpenAIGPTConfig:
    """Return their configuration, from the keys of that family; files on the hub carry many others.

    Those of any transformers model are left out: they set what a call returns, or are looked up in torch by name.
    """
    theirs = FOREIGN[model_type(raw)]
    general = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    names = {field.name for field in dataclasses.fields(theirs)} - general
    return theirs(**{name: raw[name] for name in names & raw.keys()})


def _shared(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the fields that both configurations share; special token ids outside the vocabulary become None."""
    values = {key: getattr(config, key) for key in SHARED_KEYS}
    for key in SPECIAL_IDS:
        if isinstance(values[key], int) and not 0 <= values[key] < config.vocab_size:
            values[key] = None
    return values


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within this context transformers shows no progress bars and logs only errors."""
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
