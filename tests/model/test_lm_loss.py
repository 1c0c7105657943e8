"""The chunked loss is the plain one: same value, same gradients, whatever the chunks and the labels left out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gptkit.model import lm_loss as module
from gptkit.model.lm_loss import lm_loss

VOCABULARY, WIDTH = 37, 8


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = F.linear(hidden, weight).float()
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=-100, reduction="sum")


def case(seed: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(3, 7, WIDTH, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (3, 7), generator=generator)
    targets[torch.rand(3, 7, generator=generator) < 0.3] = -100
    return hidden, weight, targets


@pytest.mark.parametrize("tokens_per_chunk", [1, 4, 21, 1000])
@pytest.mark.parametrize("scale", [1.0, 1 / 13])
@pytest.mark.parametrize("alignment", [1, 16])
def test_loss_and_gradients_equal_the_plain_ones(
    tokens_per_chunk: int, scale: float, alignment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", {"cpu": tokens_per_chunk * VOCABULARY})
    monkeypatch.setattr(module, "ALIGNMENT", {"cpu": alignment})
    hidden, weight, targets = case(seed=tokens_per_chunk)
    expected = plain(hidden, weight, targets) * scale
    expected_gradients = torch.autograd.grad(expected, (hidden, weight))
    loss = lm_loss(hidden, weight, targets) * scale
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(loss, (hidden, weight)), expected_gradients, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(lm_loss(hidden, weight, targets) * scale, expected.detach(), rtol=1e-6, atol=1e-6)


def test_gradcheck_in_double_precision() -> None:
    hidden, weight, targets = case(seed=1)
    hidden, weight = hidden.detach().double()[:1, :3].requires_grad_(), weight.detach().double().requires_grad_()
    # The loss is an fp32 scalar by contract, so its difference quotients are coarse; the gradient itself is not.
    assert torch.autograd.gradcheck(
        lambda h, w: lm_loss(h, w, targets[:1, :3]).double(), (hidden, weight), eps=1e-2, atol=1e-3
    )


def test_bf16_autocast_is_as_near_to_fp32_as_plain_bf16_is() -> None:
    hidden, weight, targets = case(seed=2)
    exact = plain(hidden, weight, targets)
    exact_gradients = torch.autograd.grad(exact, (hidden, weight))
    with torch.autocast("cpu", torch.bfloat16):
        loss = lm_loss(hidden, weight, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=1e-2, atol=0)
    for gradient, expected in zip(torch.autograd.grad(loss, (hidden, weight)), exact_gradients, strict=True):
        assert gradient.dtype == expected.dtype
        assert (gradient - expected).norm() / expected.norm() < 2e-2


def test_a_hopeless_target_gives_a_finite_loss_and_the_right_gradient() -> None:
    hidden = torch.tensor([[200.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0]], requires_grad=True)  # logits 200 and 0: p of the target underflows
    loss = lm_loss(hidden, weight, torch.tensor([1]))
    loss.backward()
    assert loss.isfinite()
    torch.testing.assert_close(hidden.grad, torch.tensor([[1.0]]))
    torch.testing.assert_close(weight.grad, torch.tensor([[200.0], [-200.0]]))


def test_no_tensor_as_large_as_all_the_logits_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", {"cpu": 16 * 512})
    hidden = torch.randn(256, WIDTH, requires_grad=True)
    weight = torch.randn(512, WIDTH, requires_grad=True)

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            for one in out if isinstance(out, tuple) else (out,):
                if isinstance(one, torch.Tensor):
                    Largest.elements = max(Largest.elements, one.numel())
            return out

    with Largest():
        lm_loss(hidden, weight, torch.randint(0, 512, (256,))).backward()
    assert Largest.elements <= 16 * 512
