"""From what `--model` names to a directory: a preset's config.json, a model's directory, a run's, hf:NAME."""

from __future__ import annotations

import re
from pathlib import Path

from gptkit.errors import InputError, UsageError
from gptkit.recipes import recipes_of
from gptkit.system import hub

CONVERTIBLE = re.compile(r"ckpt\.pt|pytorch_model.*\.bin|params_shapes\.json")  # what convert reads beside safetensors
SNAPSHOT_FILES = ["*.json", "*.safetensors", "*.txt", "*.bpe", "task.yaml"]  # never code, never pickles


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
