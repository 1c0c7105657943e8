"""nanoGPT's ckpt.pt, or the state dict of its model alone: a pickle of names and tensors; matrices are (out, in)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from gptkit.convert.formats import Importer
from gptkit.convert.openai import HEAD_DIM
from gptkit.convert.pickled import load_pickled, plain_tensors
from gptkit.errors import InputError, suggest
from gptkit.model.configuration_gpt import GPTConfig, parse_config
from gptkit.model.loading import State, checked
from gptkit.model_files import BUFFER, LAYER, TORCH_SUFFIXES, tensor_shapes

SIZES = {name: name for name in ("n_layer", "n_head", "n_embd", "vocab_size")} | {"block_size": "n_positions"}
ARGUMENTS = {*SIZES, "bias", "dropout"}
PREFIX = re.compile(r"^(module\.|_orig_mod\.)+")  # of DistributedDataParallel and torch.compile
FIX = "pass the ckpt.pt that nanoGPT's train.py wrote, or its model's state dict"

STATE_HEADS = 'state them: torch.save({"model": state_dict, "model_args": {"n_head": 4}}, "ckpt.pt")'


def matches(path: Path) -> bool:
    return (path / "ckpt.pt").exists() or (path.is_file() and path.suffix in TORCH_SUFFIXES)


def read(path: Path) -> tuple[GPTConfig, State]:
    """Return the config and weights; sizes that the file does not state are those of its tensors."""
    arguments, state = _contents(path)
    dropout, embedding = arguments.get("dropout", 0.0), state.get("transformer.wte.weight")
    raw = {
        **_sizes(arguments, state, str(path)),
        "activation_function": "gelu",  # nanoGPT's nn.GELU() is the exact (erf) form
        "position_initializer_range": 0.02,
        "tie_word_embeddings": embedding is None or torch.equal(state.get("lm_head.weight", embedding), embedding),
        **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout),
    }
    config = parse_config(raw, str(path))
    if not arguments.get("bias", any(name.endswith(".bias") for name in state)):
        shapes = tensor_shapes(config, state, str(path))
        zero = torch.zeros(())  # expanded, so no memory is allocated before the sizes are checked
        state = {name: zero.expand(shape) for name, shape in shapes.items() if name.endswith(".bias")} | state
    return config, checked(config, state, str(path))


def notes(path: Path) -> list[str]:
    """Return what the file does not say and `read` assumes."""
    arguments, state = _contents(path)
    if "n_head" in arguments:
        return []
    heads = _sizes(arguments, state, str(path))["n_head"]
    assumed = f"{HEAD_DIM} dimensions a head (n_head {heads}) and the erf GELU, as in nanoGPT"
    return [f"{path} states neither heads nor activation: assuming {assumed}; otherwise {STATE_HEADS}"]


def _contents(path: Path) -> tuple[dict[str, Any], State]:
    """Return the arguments of nanoGPT's model, {} without any, and its tensors under our names."""
    path = path / "ckpt.pt" if path.is_dir() else path
    checkpoint = load_pickled(path, FIX)
    is_bare = not (isinstance(checkpoint, dict) and isinstance(checkpoint.get("model"), dict))
    arguments = {} if is_bare else checkpoint.get("model_args", {})
    theirs = plain_tensors(checkpoint if is_bare else checkpoint["model"], str(path))
    if not isinstance(arguments, dict):
        raise InputError("model_args is not a dictionary", where=str(path), fix=FIX)
    for name, value in arguments.items():
        if not isinstance(name, str) or not isinstance(value, int | float):  # printing another could take forever
            shown = name[:60] if isinstance(name, str) else "a key"
            raise InputError(f"{shown} in model_args is not a name with a number", where=str(path), fix=FIX)
        if name not in ARGUMENTS:
            message = f"unknown key {name[:60]!r} in model_args"
            raise InputError(message, where=str(path), fix=suggest(name[:60], ARGUMENTS))
    state = {PREFIX.sub("", name): tensor for name, tensor in theirs.items()}
    return arguments, {name: tensor for name, tensor in state.items() if not BUFFER.search(name)}


def _sizes(arguments: dict[str, Any], state: State, where: str) -> dict[str, Any]:
    """Return the sizes in a config.json, from the arguments, else from the tensors' shapes."""
    names = ("wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", "h.0.mlp.c_fc.weight")
    for name in names:
        if getattr(state.get(f"transformer.{name}"), "ndim", 0) != 2:
            raise InputError(f"no matrix transformer.{name}, which nanoGPT's models have", where=where, fix=FIX)
    (vocab_size, width), (positions, _), attention, mlp = (state[f"transformer.{name}"].shape for name in names)
    if attention != (3 * width, width) and attention == (width, 3 * width):
        fix = "save it with transformers: model.save_pretrained('model'), then convert that directory"
        raise InputError("its matrices are (in, out), as transformers has them", where=where, fix=fix)
    found = {
        "vocab_size": vocab_size,
        "n_positions": positions,
        "n_embd": width,
        "n_layer": len({layer[1] for name in state if (layer := LAYER.match(name))}),
        "n_inner": None if mlp[0] == 4 * width else mlp[0],
    }
    named = {SIZES[name]: arguments[name] for name in SIZES if name in arguments}
    if "n_head" not in named:
        if width % HEAD_DIM:
            message = f"the number of heads is not stated, and width {width} is not a multiple of {HEAD_DIM}"
            raise InputError(message, where=where, fix=STATE_HEADS)
        named["n_head"] = width // HEAD_DIM
    return found | named


IMPORTER = Importer(matches, read, notes)
