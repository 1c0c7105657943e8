"""A fine-tuned model's answers to examples, in fp32: the label and all probabilities, or a score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptkit.model.loading import load_model
from gptkit.model.model_types import ANY
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.system.processor import choose_device
from gptkit.tasks.encoding import encode_examples
from gptkit.tasks.head_outputs import logits_of, marker_ids
from gptkit.tasks.heads import predictions_of, probabilities_of
from gptkit.tasks.task import Task
from gptkit.text.examples import Example
from gptkit.text.tokenizers.loading import tokenizer_in
from gptkit.training.memory import keep_freed_memory
from gptkit.use.predictions_file import fields_of


class Predictor:
    """A model directory opened to answer a task; `tokens` and `unknown` count what it read, and knew nothing of."""

    def __init__(self, directory: Path, task: Task, *, device: str, batch_size: int | None) -> None:
        keep_freed_memory()
        self._task, self._batch_size = task, batch_size
        self._tokenizer = tokenizer_in(directory)
        self._markers = marker_ids(directory, len(self._tokenizer))
        self._model = load_model(directory, head=GPTDoubleHeadsModel, types=ANY)
        self._model.to(choose_device(device)).eval()  # type: ignore[arg-type]  # its wrapper loses `self`
        self.tokens = self.unknown = 0

    def predict(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Return each example's fields and answer as `--json` prints them.

        Too long an example is cut as in training, and marked as truncated. InputError for damaged weights.
        """
        limit = self._model.config.n_positions
        encoded = encode_examples(self._tokenizer, self._task, examples, self._markers, limit)
        self.tokens += len(encoded.ids)
        self.unknown += encoded.n_unknown
        logits = logits_of(self._model, encoded, self._batch_size)
        predictions, cut = predictions_of(self._task, logits).tolist(), {*encoded.cut}
        chances = probabilities_of(logits).tolist()
        return [
            fields_of(self._task, example)
            | _answer(self._task, predictions[number], chances[number])
            | {"truncated": number in cut}
            for number, example in enumerate(examples)
        ]


def _answer(task: Task, prediction: Any, chances: Sequence[float]) -> dict[str, Any]:
    """Return the score, or the label, which is a key of the probabilities; choices are numbered from 0."""
    if task.target in ("score", "soft-score"):
        return {"value": prediction}
    labels = task.labels if task.target == "class" else [*map(str, range(len(chances)))]
    return {"label": labels[prediction], "probabilities": dict(zip(labels, chances, strict=True))}
