"""`--on-spike skip`: a step whose loss or gradient norm leaps is not taken; all of it is decided on the device.

A spike is a loss more than 6 standard deviations above the mean of the last 128 steps, or a gradient norm whose
logarithm lies more than 10 above. The norm's bound is the wider one because norms have a heavy tail: of 25,000 steps
of a small model that nobody disturbed, 32 lay beyond 6 deviations of the norm itself, 1 beyond 10 of its logarithm,
none beyond 6 of the loss. What enters the history is at most the threshold: a spike hardly widens it, a lasting rise
is taken up after some steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WINDOW = 128
LOSS_SIGMAS, NORM_SIGMAS = 6.0, 10.0
LEAST_NORM = 1e-30  # of a gradient that is zero
MOST_IN_A_ROW = 10  # skipped steps, after which a run has lost its way


@dataclass(frozen=True)
class History:
    """The last `WINDOW` losses and logarithms of gradient norms (2, WINDOW), newest last; counts of steps."""

    values: Tensor
    seen: Tensor
    skipped: Tensor
    in_a_row: Tensor

    @classmethod
    def empty(cls, device: torch.device) -> History:
        counts = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(3))
        return cls(torch.zeros(2, WINDOW, device=device), *counts)

    @classmethod
    def from_numbers(cls, numbers: dict[str, Any], device: torch.device) -> History:
        counts = (torch.tensor(numbers[name], device=device) for name in ("seen", "skipped", "in_a_row"))
        return cls(torch.tensor(numbers["values"], device=device), *counts)

    def as_numbers(self) -> dict[str, Any]:
        """Return what a checkpoint stores; this waits for the device."""
        counts = {name: int(getattr(self, name)) for name in ("seen", "skipped", "in_a_row")}
        return {"values": self.values.tolist(), **counts}


def judge(history: History, loss: Tensor, norm: Tensor) -> tuple[Tensor, History]:
    """Return whether a step is to be skipped, and the history with it; scalars of the whole step, on the device.

    Before the history is full nothing is a spike. What is not finite is none either, and leaves the history alone: it
    ends the run, or is an overflow of fp16's scale. Once too many in a row were skipped, so is everything.
    """
    is_finite = loss.isfinite() & norm.isfinite()
    now = torch.stack([loss.float(), norm.float().clamp_min(LEAST_NORM).log()])
    mean, deviation = history.values.mean(1), history.values.std(1, correction=0)
    leap = torch.stack([LOSS_SIGMAS * deviation[0], NORM_SIGMAS * deviation[1]])
    threshold = torch.where(history.seen >= WINDOW, mean + leap, torch.inf)
    is_spike = is_finite & ((now > threshold).any() | is_hopeless(history))
    values = torch.cat([history.values[:, 1:], torch.minimum(now, threshold)[:, None]], 1)
    return is_spike, History(
        torch.where(is_finite, values, history.values),
        history.seen + is_finite,
        history.skipped + is_spike,
        torch.where(is_spike, history.in_a_row + 1, torch.where(is_finite, 0, history.in_a_row)),
    )


def is_hopeless(history: History) -> Tensor:
    return history.in_a_row >= MOST_IN_A_ROW
