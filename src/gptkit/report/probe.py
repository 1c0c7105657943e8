"""A few real steps of a run, to see how long they take here and how much memory they hold; nothing is written."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from statistics import linear_regression
from typing import NamedTuple, cast

from accelerate import Accelerator

from gptkit.training import rules
from gptkit.training.job import EvalEvent, Event, MicroBatching, StepEvent, TrainingJob
from gptkit.training.loop import train
from gptkit.training.memory import PeakMemory

STEPS = 20
SECONDS = 60.0  # after which no further step begins, once there was an evaluation
EVERY = 5  # steps to an evaluation


class Probe(NamedTuple):
    """What was measured: a step costs `step_seconds` and `token_seconds` for each of its tokens.

    `evaluation_seconds` are of the job's evaluation; `peak_memory` in bytes, None where nothing tells it.
    """

    steps: int
    step_seconds: float
    token_seconds: float
    evaluation_seconds: float
    peak_memory: int | None


def probe(job: TrainingJob, accelerator: Accelerator, tokens_per_step: float) -> Probe:
    """Train up to 20 steps, with an evaluation every 5, in the loop and the arithmetic of the run.

    Several evaluations, because what one frees is not what the next step needs: memory grows until they fit together.
    Where a step nominally takes longer than the time allows, its first micro-batches stand for it: one and two of them
    in turn, which tells the update's share from the tokens'.
    """
    batches, plan = job.micro_batching.batches, job.plan
    speed = rules.EAGER_FLOPS.get((accelerator.device.type, "fp32" if plan.precision == "fp32" else "bf16"), 1e12)
    is_long = tokens_per_step * job.flops_per_token / speed * STEPS > SECONDS
    some = (lambda step: batches(step)[: 1 + step % 2]) if is_long else batches
    short_job = dataclasses.replace(
        job,
        micro_batching=MicroBatching(batches_of=lambda rows: some),
        schedule=lambda step: 0.0,
        plan=dataclasses.replace(plan, steps=STEPS, log_every=1, eval_every=EVERY, save_every=None, best_by=None),
    )
    with PeakMemory(accelerator.device) as memory:
        steps, evaluations = _timed(train(short_job, accelerator))
    step_seconds, token_seconds = line_through(steps[1:]) if is_long else (0.0, _rate(steps[1:]))
    return Probe(len(steps), step_seconds, token_seconds, min(evaluations), memory.peak)


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


def line_through(steps: list[tuple[int, float]]) -> tuple[float, float]:
    """Return the seconds of a step of no tokens, and of a token, by least squares; all tokens' where all are equal."""
    tokens, seconds = zip(*steps, strict=True)
    slope = _rate(steps)
    if len(set(tokens)) > 1:
        slope = min(slope, linear_regression(tokens, seconds).slope)
    return (sum(seconds) - slope * sum(tokens)) / len(steps), slope
