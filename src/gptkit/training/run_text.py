"""The text of the pretrain run behind a model, as the run's config.yaml names it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from gptkit.errors import GptkitError, InputError, UsageError
from gptkit.model_files import model_directory
from gptkit.recipes import CONFIG
from gptkit.system.encodings import UTF8, text_encoding
from gptkit.system.reading import read_yaml
from gptkit.system.run_layout import run_of
from gptkit.text.corpora import Corpus, hub_characters, open_corpus


def pretrain_run_of(directory: Path, fix: str) -> tuple[Path, dict[str, Any]]:
    """Return the pretrain run of a run's or model's directory, and its options; of a fine-tuned model that before it.

    UsageError, with `fix` as another way to name a text, if it is unknown.
    """
    run, options = directory if (directory / CONFIG).is_file() else run_of(directory), {}
    if run is not None and (run / CONFIG).is_file():
        options = read_yaml(run / CONFIG, "the run's options", missing=fix).plain()
    if run is None or not isinstance(options, dict) or not options.keys() & {"validation", "task"}:
        message = "the text that this model's run held out is unknown: no config.yaml of that run was found with it"
        raise UsageError(message, where=str(directory), fix=f"pass that run as --model, or {fix}")
    if "task" not in options:
        return run, options
    model = str(options.get("model"))
    if not Path(model).is_dir():
        message = f"the text that this model was pre-trained on is unknown: {run} was fine-tuned from {model}"
        raise UsageError(message, where=str(run / CONFIG), fix=fix)
    return pretrain_run_of(model_directory(model), fix)


def data_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a run's DATA; empty for the embedded corpus."""
    named = options.get("data") or []
    return tuple(map(str, named if isinstance(named, list) else [named]))


def run_encoding(options: Mapping[str, Any]) -> AbstractContextManager[object]:
    """Return a context in which files are read in the encoding that a run was given."""
    return text_encoding(str(options.get("encoding") or UTF8))


def open_run_text(run: Path, options: Mapping[str, Any], fix: str) -> Corpus:
    """Open a run's text, divided as it was; call this, and read the text, inside `run_encoding`.

    InputError, with `fix` as another way to name a text, if it cannot be read.
    """
    steps, tokens = options.get("steps"), options.get("tokens_per_step")
    characters = hub_characters(steps * tokens) if isinstance(steps, int) and isinstance(tokens, int) else None
    try:
        return open_corpus(data_of(options), str(options["validation"]), hub_characters=characters)
    except GptkitError as error:
        message = f"the text of {run} cannot be read: {error.message}"
        raise InputError(message, where=error.where, fix=f"put it back, or {fix}") from None
