from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest

from gptkit.training.options import ScheduleName
from gptkit.training.schedules import learning_rate_factor, steps_before_decay


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        ("cosine", 1, 0.25),
        ("cosine", 4, 1.0),
        ("cosine", 12, 0.1 + 0.9 * 0.5),  # half of the decay
        ("cosine", 20, 0.1),
        ("linear", 12, 0.55),
        ("linear", 20, 0.1),
        ("constant", 3, 0.75),
        ("constant", 20, 1.0),
        ("wsd", 4, 1.0),
        ("wsd", 16, 1.0),  # the last fifth decays: steps 17 to 20
        ("wsd", 18, 0.55),
        ("wsd", 20, 0.1),
        ("openai-cosine", 1, 0.0),  # x = 0: the first update does nothing
        ("openai-cosine", 5, 1.0),  # x = warm-up
        ("openai-cosine", 11, 0.5),
        ("openai-linear", 3, 0.5 * 0.9),  # x / w * (1 - x)
        ("openai-linear", 11, 0.5),
        ("openai-constant", 3, 0.5),
        ("openai-constant", 20, 1.0),
        ("slanted", 1, (1 + 0.5 * 31) / 32),  # cut = 2
        ("slanted", 2, 1.0),
        ("slanted", 11, (1 + 0.5 * 31) / 32),  # p = 1 - 9 / (2 * 9)
        ("slanted", 20, 1 / 32),
    ],
)
def test_hand_worked_values(name: str, step: int, expected: float) -> None:
    factor = learning_rate_factor(name, step, total_steps=20, warmup_steps=4, final=0.1)
    assert factor == pytest.approx(expected, abs=1e-12)


def test_decay_steps_end_early_and_without_warmup_the_first_update_counts() -> None:
    assert learning_rate_factor("linear", 12, total_steps=20, warmup_steps=2, decay_steps=10, final=0.25) == 0.25
    assert learning_rate_factor("cosine", 1, total_steps=1000) == pytest.approx(1.0, abs=1e-5)
    assert learning_rate_factor("openai-linear", 1, total_steps=138) == 1.0


@pytest.mark.parametrize("total", [1, 2, 9, 10, 19, 230, 1000])
def test_the_slanted_triangle_equals_its_published_formula_and_stays_above_1_in_32(total: int) -> None:
    ours = [learning_rate_factor("slanted", step, total_steps=total, warmup_steps=7) for step in range(1, total + 1)]
    assert max(ours) == 1.0
    assert min(ours) >= 1 / 32
    assert total == 1 or ours[-1] == 1 / 32
    if total % 10 == 0:
        t, cut = np.arange(1, total + 1), total // 10
        p = np.where(t < cut, t / cut, 1 - (t - cut) / (cut * (1 / 0.1 - 1)))
        np.testing.assert_allclose(ours, (1 + p * 31) / 32, atol=1e-12)


@pytest.mark.parametrize("name", ["openai-cosine", "openai-linear", "openai-constant"])
def test_gpt1_schedules_equal_their_published_formulas(name: str) -> None:
    """opt.py of openai/finetune-transformer-lm, as formulas: 0.2% of 138 updates is less than one step."""
    total, warmup = 138, 0.002
    x = np.arange(total) / total
    rising = x <= warmup
    formulas = {
        "openai-cosine": np.where(rising, x / warmup, 0.5 * (1 + np.cos(math.pi * x))),
        "openai-linear": np.where(rising, x / warmup, 1.0) * (1 - x),
        "openai-constant": np.where(rising, x / warmup, 1.0),
    }
    ours = [learning_rate_factor(name, t + 1, total_steps=total, warmup_steps=warmup * total) for t in range(total)]
    np.testing.assert_allclose(ours, formulas[name], atol=1e-12)


@pytest.mark.parametrize("decay_steps", [None, 0, 3, 99])
@pytest.mark.parametrize("name", get_args(ScheduleName))
def test_steps_before_the_decay_have_the_same_rate_however_many_steps_there_are(
    name: str, decay_steps: int | None
) -> None:
    for total in (1, 5, 10, 19):
        shared = steps_before_decay(name, total, decay_steps)
        assert shared <= total
        for longer in (total + 1, 2 * total, 7 * total):
            for step in range(1, shared + 1):
                rates = {
                    learning_rate_factor(name, step, total_steps=steps, warmup_steps=2.3, decay_steps=decay_steps)
                    for steps in (total, longer)
                }
                assert len(rates) == 1
    expected = {"constant": 10, "openai-constant": 10, "wsd": 8 if decay_steps is None else max(0, 10 - decay_steps)}
    assert steps_before_decay(name, 10, decay_steps) == expected.get(name, 0)
