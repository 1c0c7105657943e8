"""`--on-spike skip`: a step whose loss or gradient norm leaps is not taken; all of it is decided on the device.

A spike is a loss more than 6 standard deviations above the mean of the last 128 steps, or a gradient norm whose
logarithm lies more than 10 above. The norm's bound is the wider one because norms have a heavy tail: of 25,000 steps
of a small model that nobody disturbed, 32 lay beyond 6 deviations of the norm itself, 1 beyond 10 of its logarithm,
none beyond 6 of the loss. What enters the history is at most the threshold: a spike hardly widens it, a lasting rise
is taken up after some steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

WINDOW = 128
COUNTS = ("seen", "skipped", "in_a_row")
LOSS_SIGMAS, NORM_SIGMAS = 6.0, 10.0
LEAST_NORM = 1e-30  # of a gradient that is zero
MOST_IN_A_ROW = 10  # skipped steps, after which a run has lost its way


class SpikeHistory:
    """The last `WINDOW` losses and logarithms of gradient norms (2, WINDOW), newest last; counts of steps."""

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(2, WINDOW, device=device)
        self.seen, self.skipped, self.in_a_row = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(3))

    def detect(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Return whether a step is to be skipped, and note it; scalars of the whole step, on the device.

        Before the history is full nothing is a spike. What is not finite is none either, and leaves the history alone:
        it ends the run, or is an overflow of fp16's scale. Once too many in a row were skipped, so is everything.
        """
        is_finite = loss.isfinite() & norm.isfinite()
        now = torch.stack([loss.float(), norm.float().clamp_min(LEAST_NORM).log()])
        mean, deviation = self.values.mean(1), self.values.std(1, correction=0)
        leap = torch.stack([LOSS_SIGMAS * deviation[0], NORM_SIGMAS * deviation[1]])
        threshold = torch.where(self.seen >= WINDOW, mean + leap, torch.inf)
        is_spike = is_finite & ((now > threshold).any() | self.is_hopeless())
        values = torch.cat([self.values[:, 1:], torch.minimum(now, threshold)[:, None]], 1)
        self.values = torch.where(is_finite, values, self.values)
        self.seen = self.seen + is_finite
        self.skipped = self.skipped + is_spike
        self.in_a_row = torch.where(is_spike, self.in_a_row + 1, torch.where(is_finite, 0, self.in_a_row))
        return is_spike

    def is_hopeless(self) -> Tensor:
        """Return whether too many steps in a row were skipped."""
        return self.in_a_row >= MOST_IN_A_ROW

    def as_numbers(self) -> dict[str, Any]:
        """Return what a checkpoint stores; this waits for the device."""
        return {"values": self.values.tolist(), **{name: int(getattr(self, name)) for name in COUNTS}}

    def load(self, numbers: Mapping[str, Any]) -> None:
        """Continue from what a checkpoint stored."""
        for name in ("values", *COUNTS):
            setattr(self, name, torch.tensor(numbers[name], device=self.values.device))
