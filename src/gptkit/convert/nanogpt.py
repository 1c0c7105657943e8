"""nanoGPT's ckpt.pt: a pickle of names and tensors; matrices are (out, in)."""

from __future__ import annotations

from pathlib import Path

import torch

from gptkit.convert.own import plain_tensors, weights_only
from gptkit.errors import InputError, suggest
from gptkit.model.configuration_gpt import GPTConfig, parse_config
from gptkit.model.loading import State, checked
from gptkit.model_files import BUFFER, tensor_shapes
from gptkit.system.reading import require_regular

ARGUMENTS = frozenset({"n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout"})


def matches(path: Path) -> bool:
    return (path / "ckpt.pt").exists() or (path.is_file() and path.suffix == ".pt")


def read(path: Path) -> tuple[GPTConfig, State]:
    path = path / "ckpt.pt" if path.is_dir() else path
    require_regular(path, "copy the file again")
    try:
        checkpoint = weights_only(path)
        arguments = dict(checkpoint["model_args"])
        theirs = plain_tensors(checkpoint["model"])
        if not all(isinstance(name, str) for name in arguments):
            raise TypeError("a name that is not a string")
    except Exception:  # pickle, zip and torch raise a dozen types for a file that is damaged or not just weights
        message = "not a nanoGPT checkpoint that torch.load accepts with weights_only=True"
        raise InputError(message, where=str(path), fix="pass the ckpt.pt that nanoGPT's train.py wrote") from None
    for name in arguments:
        if name not in ARGUMENTS:
            message = f"unknown key {name!r} in model_args"
            raise InputError(message, where=str(path), fix=suggest(name, ARGUMENTS))
    dropout = arguments.get("dropout", 0.0)
    sizes = {name: arguments[name] for name in ("vocab_size", "n_layer", "n_head", "n_embd") if name in arguments}
    raw = {
        **sizes,
        "n_positions": arguments.get("block_size", 1024),
        "activation_function": "gelu",  # nanoGPT's nn.GELU() is the exact (erf) form
        "position_initializer_range": 0.02,
        **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout),
    }
    config = parse_config(raw, str(path))
    state = {name.removeprefix("_orig_mod."): tensor for name, tensor in theirs.items()}  # torch.compile's prefix
    state = {name: tensor for name, tensor in state.items() if not BUFFER.search(name)}
    if arguments.get("bias") is False:
        shapes = tensor_shapes(config, state, str(path))
        zero = torch.zeros(())  # expanded, so no memory is allocated before the sizes are checked
        state = {name: zero.expand(shape) for name, shape in shapes.items() if name.endswith(".bias")} | state
    return config, checked(config, state, str(path))
