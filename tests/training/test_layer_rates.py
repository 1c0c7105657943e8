"""Rates and first steps by layer: exactly frozen until then, and the same bits after resuming."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training_toy import bits_equal, everything, options, rows, supervised, toy, toy_loss, toy_train

from gptkit.training.job import CheckpointEvent, Plan, StepEvent
from gptkit.training.optimizers import ALL_LAYERS, Layer, OptimizerSet, Rate, build_optimizer

CHOICES = ["adamw", "muon", "openai-adam"]
HEAD, BLOCKS, EMBEDDINGS = Layer("head"), Layer("blocks", 0.5, 3), Layer("embeddings", 0.25, 5)


def layer_of(name: str) -> Layer:
    return EMBEDDINGS if name.startswith("wte") else BLOCKS if name.startswith("h.") else HEAD


def layered(model: nn.Module, choice: str) -> OptimizerSet:
    return build_optimizer(model.named_parameters(), options(optimizer=choice, weight_decay=0.5), layer_of=layer_of)


def states_after_each_step(choice: str, steps: int) -> list[dict[str, Tensor]]:
    """Weights, moments and step counts before the first step and after each."""
    model = toy()
    optimizer = layered(model, choice)
    seen = [everything(model, optimizer)]
    plan = Plan(steps=steps, eval_every=1)
    toy_train(
        plan,
        model=model,
        optimizer=optimizer,
        evaluate=lambda stop: seen.append(everything(model, optimizer)) or {"val_loss": 1.0},  # type: ignore[func-returns-value]
    )
    return seen


@pytest.mark.parametrize("choice", CHOICES)
def test_a_layer_is_exactly_frozen_until_its_first_step_and_has_no_moments(choice: str) -> None:
    seen = states_after_each_step(choice, 6)
    weights = [name for name in seen[0] if name != "lm_head.weight"]
    for step in range(1, 7):
        for name in weights:
            is_frozen = step < layer_of(name).first_step
            assert torch.equal(seen[step][name], seen[step - 1][name]) == is_frozen, (step, name)
            assert any(key.startswith(f"{name}/") for key in seen[step]) != is_frozen, (step, name)
    if choice != "muon":  # a late layer's bias correction counts its own steps
        assert seen[6]["wte.weight/step"] == 2
        assert seen[6]["ln_f.weight/step"] == 6


def test_frozen_gradients_do_not_count_towards_the_norm() -> None:
    model = toy(dropout=0.0)
    _, _, events = toy_train(Plan(steps=1), model=model, optimizer=layered(model, "adamw"))
    alone = toy(dropout=0.0)
    toy_loss(alone, rows(0, 10), supervised(0, 10)).backward()
    norm = nn.utils.get_total_norm([one.grad for one in alone.ln_f.parameters() if one.grad is not None])
    assert isinstance(events[0], StepEvent)
    assert events[0].grad_norm == pytest.approx(norm.item(), rel=1e-5)


@pytest.mark.parametrize("choice", ["adamw", "openai-adam"])
def test_a_factor_is_that_share_of_the_rate(choice: str) -> None:
    """Adam's first update without decay has the size of the rate, so that halves and quarters show."""
    model, before = toy(dropout=0.0), toy(dropout=0.0)
    at_once = {"wte": Layer("embeddings", 0.25), "h": Layer("blocks", 0.5), "ln_f": HEAD}
    optimizer = build_optimizer(
        model.named_parameters(),
        options(optimizer=choice, weight_decay=0.0, learning_rate=1e-2, epsilon=1e-20),
        layer_of=lambda name: at_once[name.split(".")[0]],
    )
    toy_loss(model, rows(0, 10), supervised(0, 10)).backward()
    optimizer.set_learning_rate(1.0)
    optimizer.step(torch.ones(()), torch.zeros(()))
    for (name, new), old in zip(model.named_parameters(), before.parameters(), strict=True):
        largest = (new - old).abs().max().item()
        assert largest == pytest.approx(1e-2 * at_once[name.split(".")[0]].factor, rel=1e-3), name


@pytest.mark.parametrize("choice", CHOICES)
def test_going_on_with_some_layers_still_frozen_gives_the_same_bits(choice: str, tmp_path: Path) -> None:
    again = partial(toy_train, Plan(steps=7, save_every=1, keep_checkpoints=9))
    model = toy()
    expected = everything(*again(model=model, optimizer=layered(model, choice), checkpoint_directory=tmp_path)[:2])
    saved = sorted(tmp_path.glob("step-*"))
    assert len(saved) == 7
    for path in saved[:6]:
        model = toy(seed=1)
        model, optimizer, events = again(model=model, optimizer=layered(model, choice), resume_from=path)
        assert not any(isinstance(event, CheckpointEvent) for event in events)
        assert bits_equal(everything(model, optimizer), expected)
        assert optimizer.rates() == layered(model, choice).rates()


def test_rates_are_told_in_the_order_of_the_data() -> None:
    assert layered(toy(), "adamw").rates() == [
        Rate("embeddings", 2.5e-4, 5),
        Rate("blocks", 5e-4, 3),
        Rate("head", 1e-3, 1),
    ]
    assert layered(toy(), "muon").rates()[1] == Rate("blocks (Muon)", 0.01, 3)


@pytest.mark.parametrize("choice", CHOICES)
def test_one_layer_for_all_is_the_default_to_the_bit(choice: str) -> None:
    ends = []
    for chosen in (None, lambda name: ALL_LAYERS):
        model = toy()
        optimizer = build_optimizer(model.named_parameters(), options(optimizer=choice), layer_of=chosen)
        assert optimizer.rates()[0] == Rate("all", 1e-3, 1)
        ends.append(everything(*toy_train(Plan(steps=3), model=model, optimizer=optimizer)[:2]))
    assert bits_equal(*ends)
