"""A few real steps of a run, to see how long they take here and how much memory they hold; nothing is written."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import cast

from accelerate import Accelerator
from torch import nn

from gptkit.training.batches import Batches, MicroBatch
from gptkit.training.events import EvalEvent, Event, StepEvent
from gptkit.training.job import LossFunction, MicroBatching, TrainingJob
from gptkit.training.loop import train
from gptkit.training.memory import PeakMemory
from gptkit.training.optimizers import OptimizerSet
from gptkit.training.plans import Plan

STEPS = 20
SECONDS = 60.0  # after which no further step begins, once there was an evaluation
EVERY = 5  # steps to an evaluation


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was measured: a step costs `step_seconds` and `token_seconds` for each of its tokens.

    `evaluation_seconds` are of the evaluation that was given; `peak_memory` in bytes, None where nothing tells it.
    """

    steps: int
    step_seconds: float
    token_seconds: float
    evaluation_seconds: float
    peak_memory: int | None

    def train_seconds(self, steps: int, tokens: float) -> float:
        """Return the seconds of `steps` steps with `tokens` tokens in all."""
        return steps * self.step_seconds + tokens * self.token_seconds

    def with_evaluation_of(self, factor: float) -> Probe:
        """Return the probe with the seconds of an evaluation so many times as large."""
        return dataclasses.replace(self, evaluation_seconds=factor * self.evaluation_seconds)


def probe(
    model: nn.Module,
    batches: Batches,
    loss_function: LossFunction,
    optimizer: OptimizerSet,
    plan: Plan,
    *,
    accelerator: Accelerator,
    evaluate: Callable[[], object],
    nominal_seconds: float,
) -> Probe:
    """Train up to 20 steps, with an evaluation every 5, in the loop and the arithmetic of the run.

    Several evaluations, because what one frees is not what the next step needs: memory grows until they fit together.
    Where a step nominally takes longer than the time allows, its first micro-batches stand for it: one and two of them
    in turn, which tells the update's share from the tokens'.
    """
    is_long = nominal_seconds * STEPS > SECONDS
    short_plan = dataclasses.replace(plan, steps=STEPS, log_every=1, eval_every=EVERY, save_every=None, best_by=None)
    some = _shortened(batches) if is_long else batches

    def evaluated(should_stop: Callable[[], bool]) -> dict[str, float]:
        evaluate()
        return {}

    with PeakMemory(accelerator.device) as memory:
        job = TrainingJob(
            model=model,
            loss_function=loss_function,
            micro_batching=MicroBatching(batches_of=lambda rows: some),
            optimizer=optimizer,
            schedule=lambda step: 0.0,
            plan=short_plan,
            evaluate=evaluated,
        )
        steps, evaluations = _timed(train(job, accelerator))
    step_seconds, token_seconds = _line(steps[1:]) if is_long else (0.0, _rate(steps[1:]))
    return Probe(
        steps=len(steps),
        step_seconds=step_seconds,
        token_seconds=token_seconds,
        evaluation_seconds=min(evaluations),
        peak_memory=memory.peak,
    )


def _shortened(batches: Batches) -> Batches:
    def some(step: int) -> list[MicroBatch]:
        return batches(step)[: 1 + step % 2]

    return some


def _timed(events: Iterator[Event]) -> tuple[list[tuple[int, float]], list[float]]:
    """Return (tokens, seconds) of each step and the seconds of each evaluation, until the time is over."""
    steps: list[tuple[int, float]] = []
    evaluations: list[float] = []
    started, tokens = time.perf_counter(), 0
    with closing(cast("Generator[Event, None, None]", events)) as stream:
        for event in stream:
            if isinstance(event, EvalEvent):
                evaluations.append(event.seconds)
            elif isinstance(event, StepEvent):
                steps.append((event.tokens - tokens, (event.tokens - tokens) / event.tokens_per_second))
                tokens = event.tokens
                if evaluations and time.perf_counter() - started > SECONDS:
                    break
    return steps, evaluations


def _rate(steps: list[tuple[int, float]]) -> float:
    """Return the seconds of a token."""
    return sum(seconds for _, seconds in steps) / sum(tokens for tokens, _ in steps)


def _line(steps: list[tuple[int, float]]) -> tuple[float, float]:
    """Return the seconds of a step of no tokens, and of a token, by least squares; all tokens' where all are equal."""
    n = len(steps)
    tokens, seconds = sum(one for one, _ in steps) / n, sum(one for _, one in steps) / n
    spread = sum((one - tokens) ** 2 for one, _ in steps)
    slope = sum((x - tokens) * (y - seconds) for x, y in steps) / spread if spread else seconds / tokens
    slope = min(slope, seconds / tokens)
    return seconds - slope * tokens, slope
