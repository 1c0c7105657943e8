"""The text that a model's pre-training run held out, read again as the run's config.yaml says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptkit.errors import InputError
from gptkit.scoring.running_text import TextProtocol
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import CHECKPOINTS, RESULT, all_steps
from gptkit.tasks.benchmarks.perplexity import text_of, validation_protocol
from gptkit.tasks.task import Loaded
from gptkit.text.corpora import Corpus
from gptkit.training.run_text import data_of, open_run_text, pretrain_run_of, run_encoding

OTHER = "pass a text: --task perplexity --data FILE"


def own_text(directory: Path) -> tuple[Loaded, TextProtocol]:
    """Return what the run of a model's directory held out, and the protocol of its val_loss.

    A fine-tuned model's is that of the model it was fine-tuned from. GptkitError, with the cure, if run or text are not
    there, or the text is not the one that the run was trained on.
    """
    run, options = pretrain_run_of(directory, OTHER)
    data, block = data_of(options), options.get("sequence_length")
    with run_encoding(options):
        corpus = open_run_text(run, options, OTHER)
        _refuse_other_text(corpus, run, data)
        held_out = text_of(corpus.validation, (f"the text that {run} held out, from {corpus.description}",))
    return held_out, validation_protocol(block if isinstance(block, int) else None)


def _refuse_other_text(corpus: Corpus, run: Path, data: tuple[str, ...]) -> None:
    """Raise InputError unless a text is the one that the run was trained on, as far as that is recorded."""
    recorded = _recorded(run)
    for key in ("data_sha256", "split_sha256"):
        found, expected = getattr(corpus, key), recorded.get(key)
        if expected is not None and found != expected:
            message = f"the text is not what {run} was trained on: {key} is {found[:12]}, was {str(expected)[:12]}"
            fix = f"restore {'it' if data else 'the Python of that run, whose documentation it is'}, or {OTHER}"
            raise InputError(message, where=", ".join(data) or "the embedded corpus", fix=fix)


def _recorded(run: Path) -> dict[str, Any]:
    """Return the hashes of a run's text from its result or, if it is unfinished, its newest checkpoint."""
    if (run / RESULT).is_file():
        return read_json_object(run / RESULT)
    states = [step / "state.json" for step in all_steps(run / CHECKPOINTS)]
    state = next((read_json_object(path) for path in states if path.is_file()), {})
    return dict(state.get("identity") or {})
