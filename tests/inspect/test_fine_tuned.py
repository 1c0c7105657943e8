"""The view of a fine-tuned model: its scores are predict's, its attention the extract token's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fine_tuned_toy import FIELDS, fine_tuned
from gptkit.inspect.inspection import inspect_model
from gptkit.tasks.given import example_of
from gptkit.tasks.table import find_task
from gptkit.use.predictor import Predictor
from inspection_toy import made_inspection

NAMES = {
    "sst2": ["the text"],
    "rte": ["the text"],
    "mrpc": ["first text first", "second text first"],
    "stsb": ["first text first", "second text first"],
    "stsb-soft": ["first text first", "second text first"],
    "demo-cloze": ["choice 0", "choice 1"],
}


@pytest.mark.parametrize("name", FIELDS)
def test_fine_tuned(name: str, show: Callable[..., Any], tmp_path: Path) -> None:
    directory, texts, task = fine_tuned(tmp_path / "model", name), FIELDS[name], find_task(name)
    found = inspect_model(directory, texts)
    tuned = found.fine_tuned
    assert tuned is not None
    (answer,) = Predictor(directory, task, device="cpu", batch_size=None).predict([example_of(task, texts, print)])
    view = show(found, hash="#view=fine-tuned&layer=1&head=2").locator("#fine-tuned")
    rows = [row.locator("td").all_inner_texts() for row in view.locator(".scores tbody tr").all()]
    shown = [float(row[-1]) for row in rows]
    expected = [answer["value"]] if "value" in answer else [*answer["probabilities"].values()]
    assert shown[-len(expected) :] == pytest.approx(expected, abs=1e-4)
    parts = [float(number) for number in rows[0][:-2]]
    assert sum(parts) == pytest.approx(float(rows[0][-2]), abs=2e-4)
    assert view.locator("h4").all_inner_texts() == NAMES[name]
    view.get_by_role("button", name="the chosen head").click()
    view.get_by_text("Table of the extract token's attention").click()
    table = [row.locator("td").all_inner_texts() for row in view.locator("details tbody tr").all()]
    exact = [weight for sequence, row in enumerate(tuned.ids) for weight in tuned.attention[1, 2, sequence, row >= 0]]
    assert [float(row[-1]) for row in table] == pytest.approx(exact, abs=1e-4)


def test_a_language_model_has_no_head(show: Callable[..., Any]) -> None:
    assert "This model has no classifier." in show(made_inspection()).locator("#fine-tuned").inner_text()
