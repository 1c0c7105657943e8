"""config.json files: ours, and those of transformers' gpt2 and openai-gpt, to and from a GPTConfig."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import GPT2Config, OpenAIGPTConfig, PreTrainedConfig

from gptkit.errors import InputError, suggest
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.quiet import quiet_transformers
from gptkit.model_files.shape import (
    GELUS,
    GPT2_SWITCHES,
    OPENAI_GPT_GELU,
    OWN_KEYS,
    SHARED_KEYS,
    SILENT_KEYS,
    SPECIAL_IDS,
    TRANSFORMERS_TYPES,
    ids_outside,
    model_type,
)
from gptkit.system.json_files import read_json_object


def read_config(path: Path) -> GPTConfig:
    """Return the configuration a config.json describes, ours or one of transformers' two families."""
    return parse_config(read_json_object(path), str(path))


def parse_config(raw: dict[str, Any], where: str) -> GPTConfig:
    """Return the configuration that a config.json's content describes; `where` names it in an InputError."""
    if "auto_map" in raw:
        raise InputError("auto_map asks to run code that lies with the model", where=where, fix="remove the key")
    if "quantization_config" in raw:
        raise InputError("the weights are quantised", where=where, fix="give the model before its quantisation")
    parsers = {"gptkit": _parse_own, "gpt2": _parse_gpt2, "openai-gpt": _parse_openai_gpt}
    if (kind := model_type(raw)) not in parsers:
        raise InputError(f"model_type {kind!r} is not a GPT that gptkit reads", where=where, fix=suggest(kind, parsers))
    try:
        with quiet_transformers():
            return parsers[kind](raw, where)
    except (StrictDataclassError, ValueError, TypeError, OverflowError) as error:
        reason = str(error).splitlines()[-1].strip().split(": ", 1)[-1]
        reason = re.sub(r"^Field '(\w+)' with value (.*) doesn't match any type in .*", r"\1 cannot be \2", reason)
        raise InputError(reason, where=where, fix="correct the value") from None


def _parse_own(raw: dict[str, Any], where: str) -> GPTConfig:
    for key in raw:
        if key not in OWN_KEYS | TRANSFORMERS_TYPES.keys() | SILENT_KEYS:
            alias = GPTConfig.attribute_map.get(key)
            fix = f"did you mean {alias!r}?" if alias else suggest(key, OWN_KEYS)
            raise InputError(f"unknown key {key!r}", where=where, fix=fix)
    _refuse_foreign_ids(raw, where)
    return GPTConfig(**{key: value for key, value in raw.items() if key not in SILENT_KEYS})


def _refuse_foreign_ids(raw: dict[str, Any], where: str) -> None:
    """Refuse special tokens outside the vocabulary, which transformers only warns of."""
    vocab_size = raw.get("vocab_size", GPTConfig.vocab_size)
    for key, id in ids_outside(raw, vocab_size):
        message = f"{key} {id} is no id of a vocabulary of {vocab_size:,}"
        raise InputError(message, where=where, fix="correct the value, or leave it out")


def _parse_gpt2(raw: dict[str, Any], where: str) -> GPTConfig:
    theirs = GPT2Config(**_known(raw, GPT2Config))
    for key, needed in GPT2_SWITCHES.items():
        if getattr(theirs, key) != needed:
            raise _unfit(f"{key} = {str(not needed).lower()} has no counterpart", where)
    if theirs.activation_function not in GELUS:
        raise _unfit(f"activation_function {theirs.activation_function!r} has no counterpart", where)
    activation = GELUS[theirs.activation_function]
    return GPTConfig(**_shared(theirs), n_inner=theirs.n_inner, activation_function=activation)


def _parse_openai_gpt(raw: dict[str, Any], where: str) -> GPTConfig:
    theirs = OpenAIGPTConfig(**_known(raw, OpenAIGPTConfig))
    if theirs.afn != OPENAI_GPT_GELU:
        raise _unfit(f"afn {theirs.afn!r} has no counterpart", where)
    return GPTConfig(**_shared(theirs), pre_norm=False)


def foreign_config(path: Path) -> GPT2Config | OpenAIGPTConfig:
    """Return transformers' configuration of a config.json of theirs: what describes the model, and nothing else.

    Their own reader would also take from it whose attention to fetch and run.
    """
    raw = read_json_object(path)
    parse_config(raw, str(path))
    theirs = GPT2Config if model_type(raw) == "gpt2" else OpenAIGPTConfig
    with quiet_transformers():
        return theirs(**_known(raw, theirs))


def hf_config(config: GPTConfig) -> GPT2Config | OpenAIGPTConfig:
    """Return the transformers configuration of the same model; InputError for what that family cannot express."""
    if config.pre_norm:
        return GPT2Config(**_shared(config), n_inner=config.n_inner, activation_function=config.activation_function)
    if config.n_inner not in (None, 4 * config.n_embd):
        raise _unfit(f"n_inner = {config.n_inner}: openai-gpt knows only 4 * n_embd = {4 * config.n_embd}")
    if config.activation_function != "gelu_new":
        raise _unfit(f"activation_function {config.activation_function!r}: openai-gpt knows only tanh GELU")
    return OpenAIGPTConfig(**_shared(config))


def _known(raw: dict[str, Any], theirs: type[PreTrainedConfig]) -> dict[str, Any]:
    """Return the keys that are fields of their configuration; hub files carry many others."""
    return {f.name: raw[f.name] for f in dataclasses.fields(theirs) if f.name in raw}


def _shared(config: PreTrainedConfig) -> dict[str, Any]:
    """Return what both sides call by the same name; special tokens outside the vocabulary are none."""
    values = {key: getattr(config, key) for key in SHARED_KEYS}
    for key in SPECIAL_IDS:
        if isinstance(values[key], int) and not 0 <= values[key] < config.vocab_size:
            values[key] = None
    return values


def _unfit(message: str, where: str | None = None) -> InputError:
    return InputError(message, where=where or "config.json", fix="such a model cannot be converted")
