"""Adapters that PEFT trained with LoRA, merged into the weights: W + scale B A (Hu et al. 2022, section 4.1).

Merging needs no PEFT, which holds the model beside the weights, and takes names in a stranger's adapter_config.json for
regular expressions, which can run forever; where it is installed, the proof of a conversion compares with it. Its
factors are A (rank, in) and B (out, rank) for our class and for transformers' alike.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gptkit.convert.pickled import load_pickled, plain_tensors
from gptkit.convert.torch_peer import TorchPeer, own_peer
from gptkit.errors import InputError
from gptkit.model.loading import State, load_safetensors
from gptkit.model.modeling_gpt import GPTPreTrainedModel
from gptkit.model_files import ADAPTER_SETTINGS, LAYER, MATRIX, not_finite, require_header
from gptkit.system.reading import read_json_object, require_regular

WEIGHTS, PICKLED = "adapter_model.safetensors", "adapter_model.bin"
COPY = "copy the whole directory of the adapter again"
MERGE = "merge it with PEFT (model.merge_and_unload()), save that model and convert it"
# What `merge` heeds, and what changes no weight of a merged model. Any other setting that is on is refused.
HEEDED = {
    *("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "bias", "modules_to_save"),
}
HARMLESS = {
    *("auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode", "peft_version"),
    *("fan_in_fan_out", "lora_dropout", "megatron_core", "qalora_group_size", "eva_config", "runtime_config"),
}
COMPUTED = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias")  # what PEFT needs of them
INITIALIZATIONS = (True, False, "gaussian", "eva", "orthogonal")  # others change the base model too
PLAIN = re.compile(r"\^?[\w.]+")  # patterns without repetition, which cannot take forever
_WRAPPED = ".modules_to_save."
_FACTOR = re.compile(r"(.+)\.lora_([AB])\.weight")


def merge(state: State, folder: Path) -> None:
    """Add an adapter to the weights of its base model, in place.

    InputError for an adapter of another kind or another base model, or one that is incomplete.
    """
    settings = read_settings(folder)
    factors, whole = _tensors(folder)
    base = settings.get("base_model_name_or_path")
    fix = f"pass the adapter's base model as SRC: {str(base)[:100]}" if base else "pass the adapter's base model as SRC"
    is_tied = state["lm_head.weight"] is state["transformer.wte.weight"]
    heads = {"score.weight"} if is_tied else {"score.weight", "lm_head.weight"}
    for module in factors:
        if module == "lm_head" and is_tied:
            message = "lm_head shares its weight with the embeddings: merging would change both"
            raise InputError(message, where=str(folder), fix="train the adapter without lm_head")
        if not (module == "lm_head" or MATRIX.search(f"{module}.weight")) or f"{module}.weight" not in state:
            raise InputError(f"no matrix {module} to merge into in this model", where=str(folder), fix=fix)
    for module in sorted(_expected(settings, state) - factors.keys()):
        raise InputError(f"the adapter has nothing for {module}", where=str(folder), fix=f"{fix}, or {COPY}")
    for name, tensor in whole.items():
        if name not in state or not (tensor.ndim == 1 or name in heads):
            raise InputError(f"{name} was trained as a whole, and is not merged", where=str(folder), fix=MERGE)
        if state[name].shape != tensor.shape:
            raise InputError(f"{name} has another shape in this model", where=str(folder), fix=fix)
        state[name].copy_(tensor)
        _require_finite(name, state[name], folder)
    for module, (a, b) in factors.items():
        weight, shape = state[f"{module}.weight"], (b.shape[0], a.shape[1])
        if weight.shape != shape:
            message = f"{module} is {tuple(weight.shape)} in this model, but {shape} in the adapter's"
            raise InputError(message, where=str(folder), fix=fix)
        weight.add_(b.float() @ a.float(), alpha=_scale(settings, module, len(a), folder))
        _require_finite(module, weight, folder)


def in_peft(model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> TorchPeer:
    """Return the base model with the adapter as PEFT computes it, unmerged; ImportError if it is not installed."""
    import peft

    settings, (factors, _) = read_settings(folder), _tensors(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the adapter of a Conv1D is loaded onto nn.Linear
        there = {name.rpartition(".")[2] for name, _ in model.named_modules()}  # not a head that was dropped
        config = peft.LoraConfig(
            target_modules=sorted(factors),  # by name: a regular expression could take forever
            modules_to_save=[name for name in settings.get("modules_to_save") or [] if name in there] or None,
            **{key: settings[key] for key in COMPUTED if settings.get(key)},
        )
        peft.PeftModel.from_pretrained(model, str(folder), config=config)  # changes the layers of `model`
    peer = own_peer(model, tokenizer)
    peer.name, peer.version = "peft", peft.__version__
    return peer


def read_settings(folder: Path) -> dict[str, Any]:
    """Return adapter_config.json; InputError unless it is of LoRA as published, and nothing in it needs a search."""
    path = folder / ADAPTER_SETTINGS
    settings = read_json_object(path)
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise InputError(f"peft_type is {str(kind)[:60]!r}, not 'LORA'", where=str(path), fix=MERGE)
    for key, value in settings.items():
        if value and key not in HEEDED | HARMLESS:
            raise InputError(f"{key[:60]} = {str(value)[:60]} is not LoRA as published", where=str(path), fix=MERGE)
    start = settings.get("init_lora_weights", True)
    if start not in INITIALIZATIONS:
        raise InputError(f"init_lora_weights = {str(start)[:60]!r} changed its base too", where=str(path), fix=MERGE)
    if settings.get("bias", "none") not in ("none", "all", "lora_only"):
        raise InputError(f"bias is {str(settings['bias'])[:60]!r}", where=str(path), fix=COPY)
    saved = settings.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
        raise InputError("modules_to_save is not a list of names", where=str(path), fix=COPY)
    numbers = {key: settings.get(key) for key in ("r", "lora_alpha")}
    for name in ("rank_pattern", "alpha_pattern"):
        pattern = settings.get(name) or {}
        if not isinstance(pattern, dict) or not all(PLAIN.fullmatch(key) for key in pattern):
            raise InputError(f"{name} is not a number for each of some names", where=str(path), fix=MERGE)
        numbers |= {f"{name} of {key}": value for key, value in pattern.items()}
    for name, value in numbers.items():
        kind = int if name.startswith("r") else int | float  # a rank is whole
        if not isinstance(value, kind) or not 0 < value < math.inf:
            raise InputError(f"{name[:60]} is {str(value)[:60]}, not a positive number", where=str(path), fix=COPY)
    return settings


def _tensors(folder: Path) -> tuple[dict[str, tuple[Tensor, Tensor]], State]:
    """Return the factors (A, B) by the module that they change, and the tensors that were trained as a whole."""
    path = folder / WEIGHTS if (folder / WEIGHTS).exists() else folder / PICKLED
    require_regular(path, COPY, missing=COPY)
    if path.name == WEIGHTS:
        require_header(path)
        found = load_safetensors(path)
    else:
        found = plain_tensors(load_pickled(path, COPY), str(path))
    # With bias = "all" PEFT saves some biases again: in a wrapper, and as they were before.
    for name in list(found):
        if ".original_module." in name or (_WRAPPED in name and name.replace(_WRAPPED, ".") in found):
            del found[name]
    named = {name.removeprefix("base_model.model.").replace(".base_layer.", "."): found[name] for name in found}
    halves: dict[str, dict[str, Tensor]] = {}
    for name in list(named):
        if factor := _FACTOR.fullmatch(name):
            halves.setdefault(factor[1], {})[factor[2]] = named.pop(name)
        elif ".lora_" in name:
            raise InputError(f"{name[:100]} is not a factor of a matrix", where=str(path), fix=MERGE)
    for module, pair in halves.items():
        if len(pair) < 2:
            raise InputError(f"{module} has only lora_{next(iter(pair))}", where=str(path), fix=COPY)
        a, b = pair["A"], pair["B"]
        if not (a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1] and a.is_floating_point() and b.is_floating_point()):
            message = f"factors of {module} do not fit: A {tuple(a.shape)}, B {tuple(b.shape)}"
            raise InputError(message, where=str(path), fix=COPY)
    return {module: (pair["A"], pair["B"]) for module, pair in halves.items()}, named


def _expected(settings: Mapping[str, Any], state: State) -> set[str]:
    """Return the matrices that the adapter should have factors for, {} if that is written as a regular expression."""
    targets, excluded = settings.get("target_modules"), settings.get("exclude_modules") or []
    layers = settings.get("layers_to_transform")
    if not isinstance(targets, list) or not isinstance(excluded, list):
        return set()

    def listed(module: str, names: Sequence[Any]) -> bool:
        return any(module == name or module.endswith(f".{name}") for name in names)

    modules = {name.removesuffix(".weight") for name in state if MATRIX.search(name)}
    chosen = {module for module in modules if listed(module, targets) and not listed(module, excluded)}
    if layers is None:
        return chosen
    numbers = {str(layer) for layer in (layers if isinstance(layers, list) else [layers])}
    return {module for module in chosen if (layer := LAYER.match(module)) and layer[1] in numbers}


def _scale(settings: Mapping[str, Any], module: str, rank: int, folder: Path) -> float:
    """Return alpha / rank, or with rsLoRA alpha / sqrt(rank) (Kalajdzievski 2023)."""
    stated = _for_module(settings.get("rank_pattern") or {}, module, settings["r"])
    if stated != rank:
        raise InputError(f"{module} has rank {rank}, but {ADAPTER_SETTINGS} says {stated}", where=str(folder), fix=COPY)
    alpha = float(_for_module(settings.get("alpha_pattern") or {}, module, settings["lora_alpha"]))
    return alpha / math.sqrt(rank) if settings.get("use_rslora") else alpha / rank


def _for_module(patterns: Mapping[str, float], module: str, default: float) -> float:
    """Return the value of the first pattern that matches the end of a module's name, as PEFT does."""
    found = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    return next(found, default)


def _require_finite(name: str, tensor: Tensor, folder: Path) -> None:
    if not all(bool(extreme.isfinite()) for extreme in tensor.aminmax()):
        raise not_finite(f"with the adapter, {name} is", str(folder))
