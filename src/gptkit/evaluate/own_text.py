"""The text that a model's pre-training run held out, read again as the run's config.yaml says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptkit.errors import GptkitError, InputError, UsageError
from gptkit.model_files import GPTShape, model_directory
from gptkit.recipes import CONFIG
from gptkit.scoring.running_text import TextProtocol
from gptkit.system.encodings import UTF8, text_encoding
from gptkit.system.reading import read_json_object, read_yaml
from gptkit.system.run_layout import CHECKPOINTS, RESULT, all_steps, described_in, run_of
from gptkit.tasks.benchmarks.perplexity import text_of, validation_protocol
from gptkit.tasks.task import Loaded
from gptkit.text.corpora import hub_characters, open_corpus

OTHER = "pass a text: --task perplexity --data FILE"


def own_text(directory: Path) -> tuple[Loaded, TextProtocol]:
    """Return what the run of a model's directory held out, and the protocol of its val_loss.

    A fine-tuned model's is that of the model it was fine-tuned from. GptkitError, with the cure, if run or text are not
    there, or the text is not the one that the run was trained on.
    """
    run, options = run_of(directory), {}
    if run is not None and (run / CONFIG).is_file():
        options = read_yaml(run / CONFIG, "the run's options", missing=OTHER).plain()
    if run is None or not isinstance(options, dict) or not options.keys() & {"validation", "task"}:
        message = "the model's own text is unknown: its directory is not in the run that trained it"
        raise UsageError(message, where=str(directory), fix=f"pass that run as --model, or {OTHER}")
    if "task" in options:
        return own_text(_pretrained(run, options))
    named = options.get("data") or []
    data = tuple(map(str, named if isinstance(named, list) else [named]))
    steps, tokens, block = (options.get(key) for key in ("steps", "tokens_per_step", "sequence_length"))
    try:
        characters = hub_characters(steps * tokens) if isinstance(steps, int) and isinstance(tokens, int) else None
        with text_encoding(str(options.get("encoding") or UTF8)):
            corpus = open_corpus(data, str(options["validation"]), hub_characters=characters)
    except GptkitError as error:
        message = f"the text that {run} held out cannot be read: {error.message}"
        raise InputError(message, where=error.where, fix=f"put it back, or {OTHER}") from None
    recorded = _recorded(run)
    for key in ("data_sha256", "split_sha256"):
        found, expected = getattr(corpus, key), recorded.get(key)
        if expected is not None and found != expected:
            message = f"the text is not what {run} was trained on: {key} is {found[:12]}, was {str(expected)[:12]}"
            fix = f"restore {'it' if data else 'the Python of that run, whose documentation it is'}, or {OTHER}"
            raise InputError(message, where=", ".join(data) or "the embedded corpus", fix=fix)
    if not isinstance(block, int):
        block = read_json_object(described_in(directory) / "config.json").get("n_positions", GPTShape.n_positions)
    notes = (f"the text that {run} held out, from {corpus.description}",)
    with text_encoding(str(options.get("encoding") or UTF8)):
        return text_of(corpus.validation, notes), validation_protocol(block)


def _pretrained(run: Path, options: dict[str, Any]) -> Path:
    """Return the directory of the model that a fine-tuning run began with."""
    model = str(options.get("model"))
    if not Path(model).is_dir():
        message = f"the text that this model was pre-trained on is unknown: {run} was fine-tuned from {model}"
        raise UsageError(message, where=str(run / CONFIG), fix=OTHER)
    return model_directory(model)


def _recorded(run: Path) -> dict[str, Any]:
    """Return the hashes of a run's text from its result or, if it is unfinished, its newest checkpoint."""
    if (run / RESULT).is_file():
        return read_json_object(run / RESULT)
    states = [step / "state.json" for step in all_steps(run / CHECKPOINTS)]
    state = next((read_json_object(path) for path in states if path.is_file()), {})
    return dict(state.get("identity") or {})
