"""fp16's dynamic loss scale, kept on the device: halved after an overflow, doubled after 2000 clean steps."""

from __future__ import annotations

import torch
from torch import Tensor

INITIAL, LARGEST, PATIENCE = 2.0**16, 2.0**24, 2000


class LossScale:
    """The scale that losses are multiplied by before the backward pass; 1 for good unless `dynamic`."""

    def __init__(self, device: torch.device, *, dynamic: bool, saved: tuple[float, float] | None = None) -> None:
        scale, clean_steps = saved or (INITIAL if dynamic else 1.0, 0.0)
        self.dynamic = dynamic
        self.scale = torch.tensor(scale, device=device)
        self.clean_steps = torch.tensor(clean_steps, device=device)

    def is_exhausted(self) -> Tensor:
        """Return whether an overflow can no longer be blamed on the scale."""
        return self.scale <= 1.0

    def update(self, found_inf: Tensor) -> None:
        """Take note of whether the gradients of a step overflowed (1) or not (0)."""
        if self.dynamic:
            self.scale, self.clean_steps = next_scale(self.scale, self.clean_steps, found_inf)

    def as_numbers(self) -> tuple[float, float] | None:
        """Return what a checkpoint stores; this waits for the device."""
        return (float(self.scale), float(self.clean_steps)) if self.dynamic else None


def next_scale(scale: Tensor, clean_steps: Tensor, found_inf: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale and its clean steps after a step, all on the device."""
    overflowed = found_inf > 0
    clean_steps = torch.where(overflowed, 0.0, clean_steps + 1)
    is_patient = clean_steps >= PATIENCE
    grown = torch.where(is_patient, (scale * 2).clamp(max=LARGEST), scale)
    return torch.where(overflowed, (scale / 2).clamp(min=1.0), grown), torch.where(is_patient, 0.0, clean_steps)
