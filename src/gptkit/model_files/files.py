"""The files of a model: the directory that `--model` names, config.json and weights in it, and the tensors' names."""

from __future__ import annotations

import re
from pathlib import Path

from gptkit.errors import InputError, UsageError
from gptkit.recipes import recipes_of
from gptkit.system import hub
from gptkit.system.reading import read_json_object, require_regular
from gptkit.system.run_layout import WEIGHTS, described_in, is_committed

CONVERTIBLE = re.compile(r"ckpt\.pt|pytorch_model.*\.bin|params_shapes\.json")  # what convert reads beside safetensors
SNAPSHOT_FILES = ["*.json", "*.safetensors", "*.txt", "*.bpe", "task.yaml"]  # never code, never pickles
SAFETENSORS, PYTORCH_BIN = "model.safetensors", "pytorch_model.bin"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
LARGEST_HEADER = 1_000_000  # bytes; a model of a thousand tensors has a hundred thousand
MATRIX = re.compile(r"\.(attn|mlp)\.(c_attn|c_fc|c_proj)\.weight$")
BUFFER = re.compile(r"\.attn\.(bias|masked_bias)$")  # causal masks that older versions saved
EMBEDDINGS = {"transformer.tokens_embed.": "transformer.wte.", "transformer.positions_embed.": "transformer.wpe."}


# --- directories ---


def model_presets() -> dict[str, Path]:
    """Return the presets by name: the config.json files under recipes/models."""
    return recipes_of("models")


def model_directory(model: str | Path) -> Path:
    """Return the directory of `source_directory`; InputError where its weights are in a format that convert is for."""
    directory = source_directory(model)
    refuse_other_formats(directory)
    return directory


def source_directory(model: str | Path) -> Path:
    """Return the directory that holds the model: `model` itself, a run's model/, or the snapshot that hf:NAME names."""
    if str(model).startswith("hf:"):
        return hub.snapshot(str(model), SNAPSHOT_FILES, what="the hub model")
    path = Path(model)
    if not (path / "config.json").exists() and (path / "model" / "config.json").exists():
        return path / "model"  # a run directory
    if path.is_dir():
        return path
    if path.is_file():
        refuse_other_formats(path)
        raise InputError("a file, not a model directory", where=str(path), fix="name the directory of a saved model")
    if str(model) in model_presets():
        fix = f"gptkit pretrain --model {model} trains one; name its run directory"
        raise UsageError(f"{model} is a preset: a shape without weights", where="--model", fix=fix)
    raise InputError("no such model directory", where=str(path), fix="check the path, or write hf:NAME for the hub")


def refuse_other_formats(path: Path) -> None:
    """Raise InputError for a file of weights, or a directory of no others, that are not safetensors."""
    is_directory = path.is_dir()
    names = sorted(file.name for file in path.iterdir()) if is_directory else [path.name]
    if any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names):
        return
    for name in names:
        if CONVERTIBLE.fullmatch(name) or (path.suffix == ".pt" and not is_directory):
            source = path if is_directory or path.suffix == ".pt" else path.parent
            fix = f"gptkit convert {source} NEW_DIRECTORY, then --model NEW_DIRECTORY"
            raise InputError(f"{name} is not safetensors, which --model takes", where=str(path), fix=fix)
        if name.endswith(".gguf"):
            fix = "gptkit convert reads no GGUF either: give it the safetensors or pytorch_model.bin it was made from"
            raise InputError(f"{name} is GGUF, which gptkit does not read", where=str(path), fix=fix)


# --- weights ---


def model_files(directory: Path) -> list[Path]:
    """Return config.json and the weights: nothing else in a directory is the model, whatever it is called."""
    config = described_in(directory) / "config.json"
    require_regular(config, "copy the whole directory")
    return [config, *weight_files(directory)]


def weight_files(directory: Path) -> list[Path]:
    """Return model.safetensors, its shards or its parts; InputError without any, and for pickles: they can run code."""
    files = files_named(directory, SAFETENSORS) or row_parts(directory)
    for file in files:
        with open(file, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
        if length > LARGEST_HEADER:  # it would fill the memory before it is understood
            message = f"damaged: a header of {length:,} bytes"
            raise InputError(message, where=str(file), fix="copy the file again")
    if files:
        return files
    pickles = sorted(file.name for pattern in PICKLES for file in directory.glob(pattern))
    if pickles:
        message = f"{pickles[0]} is a pickle, which can run code; gptkit loads safetensors only"
        raise InputError(message, where=str(directory), fix="save the model as safetensors (save_pretrained does)")
    raise InputError("no model.safetensors here", where=str(directory), fix="give a directory that holds a saved model")


def files_named(directory: Path, name: str) -> list[Path]:
    """Return the file of that name, or the shards that its index lists; empty without either, all regular files."""
    files = [directory / name] if (directory / name).exists() else _shards(directory / f"{name}.index.json")
    for file in files:
        require_regular(file, "copy the whole directory")
    return files


def _shards(index: Path) -> list[Path]:
    if not index.exists():
        return []
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    shards = read_json_object(index).get("weight_map")
    if not shards or not isinstance(shards, dict):
        raise InputError("no weight_map that names its shards", where=str(index), fix="copy the whole directory")
    names = sorted({str(name) for name in shards.values()})
    for name in names:
        if Path(name).name != name or "\\" in name or not name.endswith(suffix):
            raise InputError(f"{name!r} is no {suffix[1:]} file of this directory", where=str(index), fix="mend it")
    return [index.parent / name for name in names]


def row_parts(directory: Path) -> list[Path]:
    """Return the weight files of a checkpoint that several processes wrote, each some rows of every tensor, in order.

    None in any other directory.
    """
    found = directory.glob(f"{WEIGHTS}-*-of-*.safetensors") if is_committed(directory) else ()
    return sorted(file for file in found if file.is_file())


def not_finite(what: str, where: str = "--model") -> InputError:
    """Return the error for weights, or what was computed from them, that hold NaN or infinity."""
    fix = "the weights are damaged, or training diverged: use another model"
    return InputError(f"{what} not finite", where=where, fix=fix)


# --- names of tensors: ours, and those of transformers' gpt2 and openai-gpt ---


def own_name(theirs: str) -> str | None:
    """Return our name of a tensor of theirs, saved with or without the `transformer.` prefix; None for a buffer."""
    if BUFFER.search(theirs):
        return None
    name = theirs if theirs.startswith(("transformer.", "lm_head.")) else f"transformer.{theirs}"
    for foreign, own in EMBEDDINGS.items():
        name = name.replace(foreign, own)
    return name
