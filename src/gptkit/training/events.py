"""What a run tells while it trains, in this order at one step: evaluation, row, checkpoint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """A row of metrics.jsonl; `evaluation` holds what the evaluation of the same step returned, if there was one.

    `loss` is the exact loss of this step over all micro-batches and processes, `tokens` counts from the run's start,
    `tokens_per_second` leaves out compiling, evaluating and saving since the last row, `data_seconds` is how long the
    main process waited for batches since then, `skipped_steps` how many steps were spikes and not taken, from the run's
    start, where that is asked for.
    """

    step: int
    tokens: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    elapsed_seconds: float
    data_seconds: float
    evaluation: Mapping[str, float] = field(default_factory=dict)
    skipped_steps: int | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> StepEvent:
        """Return the row that a checkpoint of any version keeps: what is added from now on needs a default."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in row.items() if name in known})

    def as_row(self) -> dict[str, float | None]:
        """Return the row, its evaluation spread out; what JSON cannot say (the norm of an fp16 overflow) is None."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        values |= values.pop("evaluation")
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    def figures(self) -> dict[str, str]:
        """Return what a display of progress shows of it."""
        return {
            "loss": f"{self.loss:.4f}",
            "lr": f"{self.learning_rate:.2e}",
            "tokens/s": f"{self.tokens_per_second:,.0f}",
        }


@dataclass(frozen=True)
class EvalEvent:
    """An evaluation after `step`: what the caller's function returned, and the seconds it took."""

    step: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class CheckpointEvent:
    """A checkpoint is committed."""

    step: int
    path: Path
    seconds: float


@dataclass(frozen=True)
class NoticeEvent:
    """A line for the log."""

    message: str


@dataclass(frozen=True, kw_only=True)
class FinishEvent:
    """The last event of a run that came to its end, totals over all its attempts; times in seconds.

    `best_step` is the step whose evaluation was the best by `Plan.best_by`, its checkpoint kept.
    """

    step: int
    tokens: int
    train_seconds: float
    compile_seconds: float
    elapsed_seconds: float
    best_step: int | None = None

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.train_seconds if self.train_seconds else 0.0


Event = StepEvent | EvalEvent | CheckpointEvent | NoticeEvent | FinishEvent
