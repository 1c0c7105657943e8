"""Pre-training's batches and validation: every prediction once, with the loss of a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.pretrain import job
from gptkit.pretrain.job import language_modeling_loss, pretraining_batches, validate
from gptkit.text.blocks import TrainingBlocks
from gptkit.training.batches import StopEvaluation

LENGTH = 5


@pytest.fixture(scope="module")
def model() -> GPTForCausalLM:
    torch.manual_seed(0)
    return GPTForCausalLM(GPTConfig(vocab_size=13, n_positions=8, n_embd=8, n_layer=2, n_head=2)).eval()


@pytest.mark.parametrize("tokens", [2, 5, 6, 7, 31, 64])
def test_validation_is_the_sum_over_disjoint_windows_of_a_plain_loop(
    model: GPTForCausalLM, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "VALIDATION_TOKENS", 3 * LENGTH)  # batches of three windows
    ids = np.random.default_rng(tokens).integers(0, 13, tokens).astype(np.uint16)
    nll, predictions = 0.0, 0
    with torch.no_grad():
        for start in range(0, tokens - 1, LENGTH):
            window = torch.from_numpy(ids[start : start + LENGTH + 1].astype(np.int64))[None]
            logits = model(input_ids=window[:, :-1]).logits
            nll += F.cross_entropy(logits[0].double(), window[0, 1:], reduction="sum").item()
            predictions += window.shape[1] - 1
        metrics = validate(model, ids, sequence_length=LENGTH, utf8_bytes=100)
    assert predictions == tokens - 1
    assert metrics is not None
    assert metrics["val_loss"] == pytest.approx(nll / predictions, rel=1e-6)
    assert metrics["val_perplexity"] == pytest.approx(math.exp(nll / predictions), rel=1e-5)
    assert metrics["bits_per_byte"] == pytest.approx(nll / math.log(2) / 100, rel=1e-6)


def test_validation_stops_when_asked(model: GPTForCausalLM) -> None:
    ids = np.zeros(40, np.uint16)
    with pytest.raises(StopEvaluation):
        validate(model, ids, sequence_length=LENGTH, utf8_bytes=1, should_stop=lambda: True)


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 7])
def test_the_global_batch_of_a_step_does_not_depend_on_how_it_is_cut(micro_batch: int) -> None:
    blocks = TrainingBlocks(np.arange(101, dtype=np.uint16), LENGTH, seed=3)
    rows = 7  # of a step: step 3 crosses into the second epoch
    batches = pretraining_batches(blocks, sequence_length=LENGTH, rows_per_step=rows, micro_batch=micro_batch)
    for step in (1, 2, 3, 4):
        parts = batches(step)
        assert sum(one.count for one in parts) == rows * LENGTH
        loaded = [one.load() for one in parts]
        inputs = torch.cat([one["input_ids"] for one in loaded])
        expected = torch.from_numpy(blocks.rows((step - 1) * rows, rows))
        assert torch.equal(inputs, expected[:, :-1])
        assert torch.equal(torch.cat([one["shift_labels"] for one in loaded]), expected[:, 1:])


def test_losses_of_micro_batches_add_up_to_the_mean_of_the_step(model: GPTForCausalLM) -> None:
    blocks = TrainingBlocks(np.arange(101, dtype=np.uint16) % 13, LENGTH, seed=0)
    whole, cut = (
        pretraining_batches(blocks, sequence_length=LENGTH, rows_per_step=5, micro_batch=size)(1) for size in (5, 2)
    )
    with torch.no_grad():
        total = sum(language_modeling_loss(model, one.load(), 5 * LENGTH) for one in cut)
        batch = whole[0].load()
        logits = model(input_ids=batch["input_ids"]).logits
    expected = F.cross_entropy(logits.flatten(0, 1), batch["shift_labels"].flatten())
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)
