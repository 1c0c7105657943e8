"""The film of training: each frame is what its weights compute, the last the model that is inspected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generation_toy import TEXT
from gpt_toy import FAMILIES, shaken
from gptkit.decoding.text_model import first_sample
from gptkit.inspect.inspection import inspect_model
from gptkit.inspect.sidecar import tensors_of
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.kinds import train_tokenizer

STEPS = [10, 20, 30, 40, 50, 60, 70, 80]
SENTENCE = "before we proceed any further"


def saved(folder: Path, seed: int, pre_norm: bool) -> Path:
    tokenizer = train_tokenizer("bpe:300", [TEXT])
    sizes = {"n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 4}
    model = GPTForCausalLM(GPTConfig(vocab_size=len(tokenizer), **sizes, pre_norm=pre_norm))
    shaken(model, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_learning(pre_norm: bool, show: Callable[..., Any], tmp_path: Path) -> None:
    weights = {step: saved(tmp_path / str(step), step, pre_norm) for step in STEPS}
    found = inspect_model(weights[80], [SENTENCE], weights=weights)
    learning = found.learning
    assert learning is not None
    assert learning.steps.tolist() == STEPS
    np.testing.assert_array_equal(learning.nll[-1][:-1], found.loss.nll[:-1].astype(np.float32))
    np.testing.assert_array_equal(learning.top_ids[-1], found.lens.top_ids[..., 0])
    np.testing.assert_array_equal(learning.heads[-1], found.heads.scores)
    alone = tensors_of(inspect_model(weights[30], [SENTENCE]))
    np.testing.assert_allclose(learning.nll[2][:-1], alone["loss.nll"][:-1], atol=1e-5)
    np.testing.assert_allclose(learning.top_probabilities[2], alone["lens.top_probabilities"][..., 0], atol=1e-6)
    assert learning.samples[2] == first_sample(weights[30])["text"]

    view = show(found, hash="#view=learning&token=3").locator("#learning")
    slider = view.get_by_label("Step of training")
    assert slider.input_value() == "7"
    assert f"{found.loss.nll[3]:.2f}" in view.inner_text()
    slider.fill("2")
    assert view.locator("output").inner_text() == "30"
    assert f"{alone['loss.nll'][3]:.2f}" in view.inner_text()
    assert found.vocabulary[int(alone["lens.top_ids"][1, 3, 0])].strip() in view.locator(".lens").inner_text()
    view.get_by_text("Table of all steps").click()
    row = view.locator("details tr[aria-current] td").first.inner_text()
    assert float(row) == pytest.approx(alone["loss.nll"][:-1].mean(), abs=1e-4)


def test_without_a_run_the_page_says_how_to_get_it(show: Callable[..., Any], tmp_path: Path) -> None:
    view = show(inspect_model(saved(tmp_path / "model", 0, True), [SENTENCE])).locator("#learning")
    assert "--checkpoints RUN" in view.inner_text()
