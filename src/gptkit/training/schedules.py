"""Learning-rate schedules: the fraction of the peak learning rate as a pure function of the step.

Steps count from 1. cosine, linear, constant and wsd rise from 1/warmup_steps to the peak at the last warm-up step, and
reach the final fraction at the last step. GPT-1's own schedules (`openai-*`) read the step before it is incremented:
x = (step - 1) / total, so that the first update has rate 0 if there is a warm-up; openai-linear multiplies the warm-up
by 1 - x as well (opt.py of openai/finetune-transformer-lm). `slanted` is ULMFiT's slanted triangle (Howard and Ruder
2018, equation 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]  # step, counted from 1 -> fraction of the peak learning rate

WSD_DECAY_FRACTION = 0.2
SLANTED_CUT_FRACTION, SLANTED_RATIO = 0.1, 32


def learning_rate_factor(
    name: str,
    step: int,
    *,
    total_steps: int,
    warmup_steps: float = 0,
    decay_steps: int | None = None,
    final: float = 0.0,
) -> float:
    """Return the learning rate of one step as a fraction of the peak.

    `decay_steps` defaults to all steps after the warm-up, for wsd to a fifth of the run. `openai-*` decay to 0 over the
    whole run and ignore `decay_steps` and `final`; `slanted` takes all its numbers from the paper. `warmup_steps` need
    not be whole: GPT-1's 0.2% of 138 steps is 0.276.
    """
    if name == "slanted":
        return _slanted(step, total_steps)
    if name == "openai-constant":  # counted in steps, so that no bit depends on the total
        return (step - 1) / warmup_steps if step - 1 <= warmup_steps and warmup_steps > 0 else 1.0
    if name.startswith("openai-"):
        return _openai(name, (step - 1) / total_steps, warmup_steps / total_steps)
    if step < warmup_steps:
        return step / warmup_steps
    if name == "constant":
        return 1.0
    if name == "wsd":
        length = _wsd_decay(total_steps, decay_steps)
        return _linear(_progress(step, total_steps - length, length), final)
    length = total_steps - int(warmup_steps) if decay_steps is None else decay_steps
    progress = _progress(step, warmup_steps, length)
    if name == "cosine":
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
    return _linear(progress, final)


def steps_before_decay(name: str, total_steps: int, decay_steps: int | None = None) -> int:
    """Return how many of the first steps have a learning rate that does not depend on `total_steps`.

    All of them for a constant rate, those before the decay for wsd, else 0.
    """
    if name in ("constant", "openai-constant"):
        return total_steps
    return max(0, total_steps - _wsd_decay(total_steps, decay_steps)) if name == "wsd" else 0


def _wsd_decay(total_steps: int, decay_steps: int | None) -> int:
    return max(1, round(WSD_DECAY_FRACTION * total_steps)) if decay_steps is None else decay_steps


def _progress(step: int, start: float, length: int) -> float:
    """Return the fraction of the decay that is over, from 0 to 1."""
    return min(1.0, max(0.0, (step - start) / length)) if length else float(step > start)


def _linear(progress: float, final: float) -> float:
    return 1 - (1 - final) * progress


def _slanted(step: int, total_steps: int) -> float:
    """Return ULMFiT's factor: up from about 1/32 in the first tenth of the steps, then down to 1/32.

    The paper's length of the descent, cut * (1 / cut_frac - 1), equals total - cut if 10 divides the total; otherwise
    it would take the rate below 1/32, even below 0.
    """
    cut = max(1, int(total_steps * SLANTED_CUT_FRACTION))
    p = step / cut if step < cut else 1 - _progress(step, cut, total_steps - cut)
    return (1 + p * (SLANTED_RATIO - 1)) / SLANTED_RATIO


def _openai(name: str, x: float, warmup: float) -> float:
    is_warming = warmup > 0 and x <= warmup
    rise = x / warmup if is_warming else 1.0
    if name == "openai-linear":
        return rise * (1 - x)
    if is_warming:
        return rise
    return 0.5 * (1 + math.cos(math.pi * x))
