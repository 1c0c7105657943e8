"""Learning-rate schedules: pure functions of the step, as a share of the peak.

Steps count from 1. Ours rise over `warmup_steps` from 1/warmup_steps, reach the peak at its last step and the final
share at the last step of all. GPT-1's own (`openai-*`) read the step before it is incremented, so that x = (step - 1) /
total and the first update has rate 0 when there is a warm-up; its linear one multiplies the warm-up by 1 - x as well
(opt.py of openai/finetune-transformer-lm).
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]  # step, from 1 on -> share of the peak learning rate

WSD_DECAY_SHARE = 0.2


def learning_rate_factor(
    name: str,
    step: int,
    *,
    total_steps: int,
    warmup_steps: float = 0,
    decay_steps: int | None = None,
    final: float = 0.0,
) -> float:
    """Return the learning rate of one step as a share of the peak.

    `decay_steps` is all after the warm-up by default, a fifth of the run for wsd; `openai-*` decay to 0 over the whole
    run and know neither it nor `final`. A warm-up may be a fraction of a step, as GPT-1's 0.2% of 138 was.
    """
    if name.startswith("openai-"):
        return _openai(name, (step - 1) / total_steps, warmup_steps / total_steps)
    if step < warmup_steps:
        return step / warmup_steps
    if name == "constant":
        return 1.0
    if name == "wsd":
        length = max(1, round(WSD_DECAY_SHARE * total_steps)) if decay_steps is None else decay_steps
        return _linear(_progress(step, total_steps - length, length), final)
    length = total_steps - int(warmup_steps) if decay_steps is None else decay_steps
    progress = _progress(step, warmup_steps, length)
    return _cosine(progress, final) if name == "cosine" else _linear(progress, final)


def _progress(step: int, start: float, length: int) -> float:
    """Return how much of the decay is over, from 0 to 1."""
    return min(1.0, max(0.0, (step - start) / length)) if length else float(step > start)


def _linear(progress: float, final: float) -> float:
    return 1 - (1 - final) * progress


def _cosine(progress: float, final: float) -> float:
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def _openai(name: str, x: float, warmup: float) -> float:
    is_warming = warmup > 0 and x <= warmup
    rise = x / warmup if is_warming else 1.0
    if name == "openai-linear":
        return rise * (1 - x)
    if name == "openai-constant" or is_warming:
        return rise
    return 0.5 * (1 + math.cos(math.pi * x))
