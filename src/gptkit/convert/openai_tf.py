"""OpenAI's GPT-2 as TensorFlow saved it: hparams.json and model.ckpt.*; matrices are (1, in, out)."""

from __future__ import annotations

import re
from pathlib import Path

from gptkit.convert.formats import Importer
from gptkit.convert.tensor_bundle import AGAIN, read_bundle
from gptkit.errors import InputError, suggest
from gptkit.model.configuration_gpt import GPTConfig, parse_config
from gptkit.model.loading import State, checked, transposed
from gptkit.system.reading import read_json_object, read_text

HPARAMS = {"n_vocab": "vocab_size", "n_ctx": "n_positions"} | {name: name for name in ("n_embd", "n_head", "n_layer")}
LARGEST_POINTER = 1_000_000  # bytes
_EMBEDDING = re.compile(r"model/(wte|wpe)")
_PARAMETER = re.compile(r"model/(?:h([0-9]+)/)?((?:\w+/)*\w+)/([wgb])")  # not what an optimizer saved beside it


def matches(path: Path) -> bool:
    return (path / "hparams.json").exists()


def read(directory: Path) -> tuple[GPTConfig, State]:
    hparams = directory / "hparams.json"
    sizes = read_json_object(hparams)
    for name in sizes.keys() - HPARAMS.keys():
        raise InputError(f"unknown key {name!r}", where=str(hparams), fix=suggest(name, HPARAMS))
    for name in sorted(HPARAMS.keys() - sizes.keys(), reverse=True):
        raise InputError(f"no {name}", where=str(hparams), fix="use OpenAI's own file")
    config = parse_config({HPARAMS[name]: size for name, size in sizes.items()}, str(hparams))
    theirs = read_bundle(_prefix(directory), lambda name: own_name(name) is not None)
    state: State = {}
    for name, tensor in theirs.items():
        own = str(own_name(name))
        state[own] = transposed(own, tensor[0] if tensor.ndim == 3 else tensor)
    return config, checked(config, state, str(directory))


def own_name(theirs: str) -> str | None:
    """Return our name of one of their variables, None for one that is not a weight, such as an optimizer's."""
    if found := _EMBEDDING.fullmatch(theirs):
        return f"transformer.{found[1]}.weight"
    if found := _PARAMETER.fullmatch(theirs):
        layer = f"h.{found[1]}." if found[1] else ""
        return f"transformer.{layer}{found[2].replace('/', '.')}.{'bias' if found[3] == 'b' else 'weight'}"
    return None


def _prefix(directory: Path) -> Path:
    """Return the path of the newest checkpoint, which the file `checkpoint` names, without its suffixes."""
    pointer = directory / "checkpoint"
    if not pointer.exists():
        found = sorted(directory.glob("*.index"))
        if len(found) != 1:
            message = f"{len(found)} files named *.index, and no file `checkpoint` that names one"
            raise InputError(message, where=str(directory), fix=AGAIN)
        return found[0].with_suffix("")
    text = read_text(pointer, "the file", most=LARGEST_POINTER, fix=AGAIN)
    named = re.search(r'^model_checkpoint_path: *"([^"]*)"', text, flags=re.MULTILINE)
    name = named[1] if named else ""
    if not name or Path(name).name != name or "\\" in name:
        message = f"model_checkpoint_path is {name[:60]!r}, not the name of a checkpoint in this directory"
        fix = 'write, for instance, model_checkpoint_path: "model.ckpt"'
        raise InputError(message, where=str(pointer), fix=fix)
    return directory / name


IMPORTER = Importer(matches, read)
