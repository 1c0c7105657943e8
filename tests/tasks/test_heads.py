"""Which tasks a fine-tuned model's head answers: its own, those it was made comparable to, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from gptkit.scoring.measures import measure
from gptkit.tasks.heads import head_fits, items_of_logits, output_labels
from gptkit.tasks.table import find_task
from gptkit.text.examples import Example


@pytest.mark.parametrize(
    ("trained_on", "asked", "fits"),
    [
        ("rte", "rte", True),
        ("snli", "breaking-nli", True),  # which is for evaluation alone
        ("mnli", "breaking-nli", True),
        ("race", "race-middle", True),  # two halves of one task
        ("race", "copa", False),  # scored by its own zero-shot row
        ("rte", "breaking-nli", False),  # two classes, not three
        ("demo-classification", "demo-similarity", False),
        ("cola", "sst2", False),
        ("stsb", "mrpc", False),
    ],
)
def test_a_head_answers_its_own_task_and_what_has_its_outputs(trained_on: str, asked: str, fits: bool) -> None:
    trained, task = find_task(trained_on), find_task(asked)
    assert head_fits(task, trained.name, trained.format, output_labels(trained)) is fits


def test_a_correlation_of_equal_predictions_is_undefined_by_their_label_not_their_index() -> None:
    task = find_task("cola")
    examples = [Example((word,), number % 2, "", word) for number, word in enumerate("abcd")]
    items = items_of_logits(task, examples, np.array([[1.0, 0.0]] * 4))
    reason = f"all predictions are {task.labels[0]!r}"
    assert measure(("matthews",), items)["matthews"]["reason"] == reason
    assert not items_of_logits(task, examples, np.eye(2)[[0, 1, 1, 0]]).undefined


def test_a_language_model_has_no_head() -> None:
    assert not head_fits(find_task("rte"), None, None, ())
