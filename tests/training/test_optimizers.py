from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_toy import bits_equal, everything, options, rows, step_rows, supervised, toy, toy_loss, toy_train

from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.training import own_optimizers
from gptkit.training.job import Plan
from gptkit.training.optimizers import OPTIMIZERS, build_optimizer
from gptkit.training.options import OptimizerName
from gptkit.training.own_optimizers import Muon, OpenAIAdam, orthogonalize, shaped_update
from gptkit.training.schedules import learning_rate_factor

CHOICES = get_args(OptimizerName)


@pytest.fixture
def _adagrad(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of torch.optim's as it is: it makes its state when it is built, with step counts on the host."""
    row = lambda groups, options: torch.optim.Adagrad(groups, lr=options.learning_rate)  # noqa: E731
    monkeypatch.setitem(OPTIMIZERS, "adagrad", row)  # type: ignore[misc]


def test_every_choice_has_a_row() -> None:
    assert set(OPTIMIZERS) == set(CHOICES)


def openai_reference(
    weights: np.ndarray, gradients: np.ndarray, rates: list[float], decay: float, beta1: float, beta2: float, eps: float
) -> np.ndarray:
    """opt.py of openai/finetune-transformer-lm in float64: epsilon before, decay after the bias correction."""
    weights, mean, square = weights.astype(np.float64), 0.0, 0.0
    for t, (gradient, rate) in enumerate(zip(gradients.astype(np.float64), rates, strict=True), start=1):
        size = rate * np.sqrt(1 - beta2**t) / (1 - beta1**t)
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        weights = weights - size * (mean / (np.sqrt(square) + eps)) - size * decay * weights
    return weights


@pytest.mark.parametrize("schedule", ["openai-cosine", "openai-linear", "openai-constant"])
@pytest.mark.parametrize("shape", [(5, 7), (7,)])
@pytest.mark.parametrize("piece", [4, own_optimizers.PIECE])
def test_openai_adam_equals_gpt1s_over_50_steps(
    schedule: str, shape: tuple[int, ...], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_optimizers, "PIECE", piece)
    random = np.random.default_rng(0)
    weights = (0.1 * random.standard_normal(shape)).astype(np.float32)
    gradients = (1e-3 * random.standard_normal((50, *shape))).astype(np.float32)
    factors = [learning_rate_factor(schedule, step, total_steps=50, warmup_steps=5) for step in range(1, 51)]
    parameter = nn.Parameter(torch.tensor(weights))
    chosen = options(optimizer="openai-adam", learning_rate=2.5e-3, weight_decay=0.01, beta2=0.999)
    optimizer = build_optimizer([("w", parameter)], chosen)
    for factor, gradient in zip(factors, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
        optimizer.set_learning_rate(factor)
        optimizer.step(torch.ones(()), torch.zeros(()))
    decay = 0.01 if len(shape) > 1 else 0.0  # vectors are not decayed
    expected = openai_reference(weights, gradients, [2.5e-3 * one for one in factors], decay, 0.9, 0.999, 1e-8)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, atol=1e-7, rtol=0)
    assert np.abs(expected - weights).max() > 1e-2


def test_openai_adam_is_not_adamw() -> None:
    ours, theirs = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    adam = OpenAIAdam([ours], lr=0.1, weight_decay=0.1)
    adamw = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.1)
    for parameter, optimizer in ((ours, adam), (theirs, adamw)):
        parameter.grad = torch.zeros(3, 3)
        optimizer.step()
    assert theirs[0, 0].item() == pytest.approx(1 - 0.1 * 0.1)
    assert ours[0, 0].item() == pytest.approx(1 - 0.1 * 0.1 * 0.001**0.5 / 0.1)  # 0.316 of it at t = 1


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 40, 16), (2, 16, 40)])
def test_muon_makes_singular_values_nearly_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape) * 1e-4
    update = orthogonalize(matrices, torch.float32)
    values = torch.linalg.svdvals(update)
    assert values.min() > 0.6
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    cosine = (update * (left @ right)).sum() / update.norm() / (left @ right).norm()
    assert cosine > 0.98  # the same singular vectors


def test_muon_scales_by_shape_and_takes_fused_thirds_apart() -> None:
    torch.manual_seed(0)
    fused = torch.randn(1, 24, 8)
    thirds = orthogonalize(fused.view(3, 8, 8), torch.float32)
    torch.testing.assert_close(shaped_update(fused, torch.float32, is_fused=True), thirds.view(1, 24, 8))
    tall = torch.randn(1, 32, 8)
    torch.testing.assert_close(shaped_update(tall, torch.float32), 2 * orthogonalize(tall, torch.float32))


def test_muon_knows_fused_weights_by_their_name_not_by_their_shape() -> None:
    """With n_inner = 3 n_embd the feed-forward's first matrix has the shape of query, key and value weights."""
    torch.manual_seed(0)
    model = GPTForCausalLM(GPTConfig(vocab_size=11, n_positions=4, n_embd=8, n_layer=1, n_head=2, n_inner=24))
    chosen = options(optimizer="muon", weight_decay=0.0)
    optimizer = build_optimizer(model.named_parameters(), chosen)
    before = everything(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    block = model.transformer.h[0]
    optimizer.step(torch.ones(()), torch.zeros(()))
    for name, weight in (("attn.c_attn", block.attn.c_attn.weight), ("mlp.c_fc", block.mlp.c_fc.weight)):
        assert weight.shape == (24, 8)
        assert weight.grad is not None
        pieces = weight.grad.view(3, 8, 8) if name == "attn.c_attn" else weight.grad[None] * 1.0
        update = orthogonalize(pieces, torch.float32).view(24, 8) * (1.0 if name == "attn.c_attn" else 3**0.5)
        change = before[f"transformer.h.0.{name}.weight"] - weight.detach()
        torch.testing.assert_close(change, chosen.muon_learning_rate * update, atol=1e-5, rtol=1e-3)


def test_muons_momentum_is_nesterovs() -> None:
    torch.manual_seed(0)
    gradients = torch.randn(3, 4, 6)
    matrix = nn.Parameter(torch.ones(4, 6))
    muon = Muon([matrix], lr=0.1, momentum=0.9, weight_decay=0.5)
    expected, momentum = torch.ones(4, 6), torch.zeros(4, 6)
    for gradient in gradients:
        matrix.grad = gradient.clone()
        muon.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        looked_ahead = 0.1 * gradient + 0.9 * momentum
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * orthogonalize(looked_ahead[None], torch.float32)[0]
    torch.testing.assert_close(matrix.detach(), expected, atol=1e-6, rtol=1e-5)


def test_groups_decay_matrices_only_count_tied_weights_once_and_leave_frozen_ones() -> None:
    model = toy()
    model.ln_f.bias.requires_grad_(False)
    names = {id(one): name for name, one in model.named_parameters()}
    assert len(list(model.named_parameters(remove_duplicate=False))) == len(names) + 1  # the tied head
    optimizer = build_optimizer(model.named_parameters(), options(optimizer="muon", weight_decay=0.1))
    muon, adamw = optimizer.parts
    hidden = {names[id(one)] for group in muon.param_groups for one in group["params"]}
    assert hidden == {f"h.{block}.{layer}.weight" for block in (0, 1) for layer in (0, 1)}
    decays = {names[id(one)]: group["weight_decay"] for group in adamw.param_groups for one in group["params"]}
    assert decays == {
        name: 0.1 if name == "wte.weight" else 0.0 for name in set(names.values()) - hidden - {"ln_f.bias"}
    }


def accumulate(choice: str, pieces: list[tuple[int, int]], steps: int = 3) -> dict[str, Tensor]:
    model = toy(dropout=0.0)
    optimizer = build_optimizer(model.named_parameters(), options(optimizer=choice))
    for _ in range(steps):
        for first, count in pieces:
            toy_loss(model, rows(first, count), supervised(0, 8)).backward()
        optimizer.step(torch.ones(()), torch.zeros(()))
        optimizer.zero_grad()
    return everything(model, optimizer)


@pytest.mark.parametrize("choice", CHOICES)
def test_one_and_four_micro_batches_update_alike(choice: str) -> None:
    whole, pieces = accumulate(choice, [(0, 8)]), accumulate(choice, [(0, 3), (3, 2), (5, 2), (7, 1)])
    for name, tensor in whole.items():
        torch.testing.assert_close(pieces[name], tensor, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_masked_update_changes_no_bit(choice: str, poison: float) -> None:
    model = toy(dropout=0.0)
    optimizer = build_optimizer(model.named_parameters(), options(optimizer=choice))

    def step(found_inf: float) -> None:
        toy_loss(model, rows(0, 4), 8).backward()
        if found_inf:
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad.view(-1)[0] = poison
        optimizer.step(torch.tensor(poison if found_inf else 1.0), torch.tensor(found_inf))
        optimizer.zero_grad()

    step(0.0)
    before = everything(model, optimizer)
    step(1.0)
    assert bits_equal(everything(model, optimizer), before)
    step(0.0)
    assert not bits_equal(everything(model, optimizer), before)


@pytest.mark.parametrize("choice", CHOICES)
def test_gradients_are_divided_by_the_scale(choice: str) -> None:
    ends = []
    for scale in (1.0, 4.0):
        model = toy(dropout=0.0)
        optimizer = build_optimizer(model.named_parameters(), options(optimizer=choice))
        (toy_loss(model, rows(0, 4), 8) * scale).backward()
        optimizer.step(torch.tensor(scale), torch.zeros(()))
        ends.append(everything(model, optimizer))
    assert bits_equal(*ends)  # powers of two lose nothing


@pytest.mark.usefixtures("_adagrad")
def test_an_optimizer_off_the_shelf_obeys_scale_and_overflow() -> None:
    test_gradients_are_divided_by_the_scale("adagrad")
    test_a_masked_update_changes_no_bit("adagrad", float("nan"))


@pytest.mark.usefixtures("_adagrad")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_with_an_optimizer_off_the_shelf_resumes_bit_for_bit(precision: str, tmp_path: Path) -> None:
    plan = Plan(steps=5, log_every=1, save_every=2, keep_checkpoints=9, precision=precision)
    model, optimizer, events = toy_train(plan, choice="adagrad", checkpoint_directory=tmp_path)
    resumed = toy_train(plan, choice="adagrad", model=toy(seed=1), resume_from=tmp_path / "step-000002")
    assert bits_equal(everything(*resumed[:2]), everything(model, optimizer))
    assert step_rows(resumed[2]) == step_rows(events)[2:]
    state = optimizer.parts[0].state[model.get_parameter("wte.weight")]
    assert state["step"].item() == 5
    assert not bits_equal(model.state_dict(), toy().state_dict())


@pytest.mark.usefixtures("_adagrad")
@pytest.mark.parametrize("choice", ["adagrad", "adamw"])
def test_shards_of_parameters_are_updated_as_the_whole(choice: str) -> None:
    whole, sharded = nn.Parameter(torch.randn(5, 3)), range(2, 4)
    with torch.no_grad():
        shard = nn.Parameter(whole[2:4].clone())
    gradient, one, none = torch.randn(5, 3), torch.ones(()), torch.zeros(())
    ends = []
    for parameter, rows_here in ((whole, None), (shard, sharded)):
        optimizer = build_optimizer([("w", nn.Parameter(whole.detach().clone()))], options(optimizer=choice))
        optimizer.replace({"w": parameter}, {"w": rows_here or range(5)})
        parameter.grad = gradient.clone() if rows_here is None else gradient[2:4].clone()
        optimizer.step(one, none)
        ends.append(everything(nn.ParameterDict({"w": parameter}), optimizer))
    assert ends[0].keys() == ends[1].keys()
    for name, tensor in ends[0].items():
        assert torch.equal(tensor[2:4] if tensor.ndim else tensor, ends[1][name])
