"""From what `--model` names to a directory: a preset's config.json, a model's directory, a run's, hf:NAME."""

from __future__ import annotations

from pathlib import Path

from gptkit.errors import InputError, UsageError
from gptkit.recipe_files import recipes_of

SNAPSHOT_FILES = ["*.json", "*.safetensors", "*.txt", "*.bpe", "task.yaml"]  # never code, never pickles


def model_presets() -> dict[str, Path]:
    """Return the presets by name: the config.json files under recipes/models."""
    return recipes_of("models")


def model_directory(model: str | Path) -> Path:
    """Return the directory that holds the model: `model` itself, a run's model/, or the snapshot that hf:NAME names."""
    if str(model).startswith("hf:"):
        return _snapshot(str(model))
    path = Path(model)
    if not (path / "config.json").exists() and (path / "model" / "config.json").exists():
        return path / "model"  # a run directory
    if path.is_dir():
        return path
    if path.is_file():
        fix = "gptkit convert makes a directory of nanoGPT's ckpt.pt and OpenAI's params"
        raise InputError("a file, not a model directory", where=str(path), fix=fix)
    if str(model) in model_presets():
        fix = f"gptkit pretrain --model {model} trains one; name its run directory"
        raise UsageError(f"{model} is a preset: a shape without weights", where="--model", fix=fix)
    raise InputError("no such model directory", where=str(path), fix="check the path, or write hf:NAME for the hub")


def _snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download

    from gptkit.network import require_hub

    require_hub(name)
    try:
        return Path(snapshot_download(name.removeprefix("hf:"), allow_patterns=SNAPSHOT_FILES))
    except Exception as error:  # the library's own kinds, and those of its HTTP client
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk is not the hub's fault
        reason = (str(error) or type(error).__name__).splitlines()[0]
        fix = "check the name and the network; a gated model needs HF_TOKEN"
        raise InputError(f"the hub model cannot be fetched: {reason}", where=name, fix=fix) from error
