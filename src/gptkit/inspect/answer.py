"""What a fine-tuned model's own head answers to the text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptkit.inspect.reading import Asked, Fields
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.tasks.head_outputs import logits_of
from gptkit.tasks.heads import predictions_of, probabilities_of


@dataclass(frozen=True, eq=False)
class Answer:
    """The probabilities of the labels, or of the choices; if `is_score`, the only "probability" is the score."""

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]  # (label,)
    is_score: bool = False

    @property
    def chosen(self) -> int:
        return int(self.probabilities.argmax())


def answer_of(model: GPTDoubleHeadsModel, asked: Asked, fields: Fields) -> Answer:
    logits = logits_of(model, asked.encoded)  # (1, output)
    task = asked.task
    if task.target in ("score", "soft-score"):
        return Answer(("score",), predictions_of(task, logits).astype(np.float32), is_score=True)
    choices = tuple(text for name, text in fields if name == "choices")
    return Answer(task.labels or choices, probabilities_of(logits)[0].astype(np.float32))
