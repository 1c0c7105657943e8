"""One optimizer update, without a single wait for the device."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from gptkit.training.batches import Batch, MicroBatch, Share, StepWork, dropout_seed
from gptkit.training.checkpoints import TrainState
from gptkit.training.job import LossFunction, TrainingJob
from gptkit.training.processes import all_reduce
from gptkit.training.sharding import Sharding

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
NEVER = 2**62
WINDOW = 128
COUNTS = ("seen", "skipped", "in_a_row")
LOSS_SIGMAS, NORM_SIGMAS = 6.0, 10.0
LEAST_NORM = 1e-30  # of a gradient that is zero
MOST_IN_A_ROW = 10  # skipped steps, after which a run has lost its way
INITIAL_SCALE, LARGEST_SCALE, PATIENCE = 2.0**16, 2.0**24, 2000


def autocast(device: str, precision: str) -> Any:
    """Return the context of a forward pass: 16-bit products on float32 weights, or nothing for fp32."""
    return torch.autocast(device, AUTOCAST[precision]) if precision in AUTOCAST else nullcontext()


@contextmanager
def uncompiled(is_compiled: bool) -> Iterator[None]:
    """Run compiled modules eagerly."""
    if not is_compiled:  # not to import the compiler for nothing
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


class LossModule(nn.Module):
    """The model with its loss, so that what runs on several processes is one function to a scalar.

    The loss function sees the caller's own model, never a wrapper.
    """

    def __init__(self, model: nn.Module, loss_function: LossFunction) -> None:
        super().__init__()
        self.model = model
        self.loss_function = loss_function

    def forward(self, batch: Batch, count: Tensor) -> Tensor:
        return self.loss_function(self.model, batch, count)


class LossScale:
    """fp16's loss scale, on the device: halved after an overflow, doubled after 2000 clean steps; else 1 for good."""

    def __init__(self, device: torch.device, *, dynamic: bool) -> None:
        self.dynamic = dynamic
        self.scale = torch.tensor(INITIAL_SCALE if dynamic else 1.0, device=device)
        self.clean_steps = torch.tensor(0.0, device=device)

    def is_exhausted(self) -> Tensor:
        """Return whether an overflow can no longer be blamed on the scale."""
        return self.scale <= 1.0

    def update(self, found_inf: Tensor) -> None:
        """Take note of whether the gradients of a step overflowed (1) or not (0)."""
        if not self.dynamic:
            return
        overflowed = found_inf > 0
        clean_steps = torch.where(overflowed, 0.0, self.clean_steps + 1)
        is_patient = clean_steps >= PATIENCE
        grown = torch.where(is_patient, (self.scale * 2).clamp(max=LARGEST_SCALE), self.scale)
        self.scale = torch.where(overflowed, (self.scale / 2).clamp(min=1.0), grown)
        self.clean_steps = torch.where(is_patient, 0.0, clean_steps)

    def as_numbers(self) -> tuple[float, float] | None:
        """Return what a checkpoint stores; this waits for the device."""
        return (float(self.scale), float(self.clean_steps)) if self.dynamic else None

    def load(self, numbers: Sequence[float]) -> None:
        """Continue from what a checkpoint stored."""
        self.scale, self.clean_steps = (torch.tensor(number, device=self.scale.device) for number in numbers)


class SpikeHistory:
    """`--on-spike skip`: a step whose loss or gradient norm leaps is not taken; all of it is decided on the device.

    A spike is a loss more than 6 standard deviations above the mean of the last 128 steps, or a gradient norm whose
    logarithm lies more than 10 above. The norm's bound is the wider one because norms have a heavy tail: of 25,000
    steps of a small model that nobody disturbed, 32 lay beyond 6 deviations of the norm itself, 1 beyond 10 of its
    logarithm, none beyond 6 of the loss. What enters the history is at most the threshold: a spike hardly widens it, a
    lasting rise is taken up after some steps.

    `values` are the last `WINDOW` losses and logarithms of norms (2, WINDOW), newest last; the rest are counts.
    """

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


@dataclass(frozen=True)
class StepResult:
    """What a step left on the device: this process's part of the loss, and the norm of the whole gradient.

    `data_seconds` is how long this process waited for its batches.
    """

    loss: Tensor
    grad_norm: Tensor
    tokens: int
    data_seconds: float


class Trainer:
    """A job as one process trains it; `first_bad_step` lives on the device, NEVER until something was not finite.

    With `shards` each process has its rows of weights, gradients and moments alone: `backward` adds up the gradients
    over the processes each time. With `spikes`, the losses and norms so far, a step that leaps above them is not taken.
    `parts` is what a checkpoint stores of it beside tensors: state.json has each under its name, by `as_numbers` and
    `load`.
    """

    def __init__(self, job: TrainingJob, accelerator: Accelerator, *, shards: bool = False) -> None:
        device, plan = accelerator.device, job.plan
        self.job, self.accelerator, self.optimizer = job, accelerator, job.optimizer
        self.sharding = Sharding(job.model, job.optimizer, device, accelerator.num_processes) if shards else None
        model = job.model if self.sharding is None else self.sharding.sharded
        self.objective: nn.Module = LossModule(model, job.loss_function)
        if accelerator.num_processes > 1 and not shards:
            self.objective = accelerator.prepare_model(self.objective)
        self.state = TrainState(job.model, job.optimizer, self.sharding)
        self.loss_scale = LossScale(device, dynamic=plan.precision == "fp16")
        self.spikes = SpikeHistory(device) if plan.skip_spikes else None
        self.parts: dict[str, LossScale | SpikeHistory | None] = {"loss_scale": self.loss_scale, "spikes": self.spikes}
        self.first_bad_step = torch.tensor(NEVER, device=device)

    def autocast(self) -> Any:
        """Return the context of a forward pass."""
        return autocast(self.accelerator.device.type, self.job.plan.precision)

    def take_step(self, stream: Iterator[tuple[StepWork, Share, Batch]], learning_rate_factor: float) -> StepResult:
        """Run this process's micro-batches of the next step, and update unless the gradient is not finite."""
        losses, data_seconds, is_last = [], 0.0, False
        while not is_last:
            start = time.perf_counter()
            work, share, batch = next(stream)
            data_seconds += time.perf_counter() - start
            losses.append(self.backward(work, share, batch))
            is_last = share.is_last
        loss = torch.stack(losses).sum()
        grad_norm = self.update(loss, work.step, learning_rate_factor)
        return StepResult(loss, grad_norm, work.tokens, data_seconds)

    def backward(self, work: StepWork, share: Share, batch: Batch) -> Tensor:
        """Add one micro-batch's gradients and return its loss; processes exchange gradients after their last one."""
        device = self.accelerator.device
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        # A tensor, as a compiler would take a number for a constant; filled, as copying it would wait.
        count = torch.full((), float(work.count), device=device)
        seed_generator(device, dropout_seed(self.job.plan.seed, work.step, share.micro_batch.first_row))
        with nullcontext() if share.is_last else self.accelerator.no_sync(self.objective):
            with self.autocast():
                loss = self.objective(moved, count)
            # DDP and FSDP divide the gradients' sum by the number of processes.
            scaled = loss * (share.weight * self.accelerator.num_processes)
            self.accelerator.backward(scaled * self.loss_scale.scale if self.loss_scale.dynamic else scaled)
        part: Tensor = loss.detach().float() * share.weight
        return part

    @torch.no_grad()
    def update(self, loss: Tensor, step: int, learning_rate_factor: float) -> Tensor:
        """Clip by the global norm, step where all is finite and no spike, note a bad step; return the norm before."""
        scale, clip_norm = self.loss_scale.scale, self.job.plan.clip_norm
        if self.sharding is not None:
            self.sharding.move_gradients_to_shards()
        self.optimizer.drop_frozen_gradients(step)
        norm = self.grad_norm() / scale
        overflowed = ~norm.isfinite()
        is_held = overflowed | ~loss.isfinite()
        if self.spikes is not None:
            whole = all_reduce(self.accelerator, loss.clone(), dist.ReduceOp.SUM)
            is_held = is_held | self.spikes.detect(whole, norm)
        divisor = scale * (norm / clip_norm).clamp(min=1.0) if clip_norm else scale
        self.optimizer.set_learning_rate(learning_rate_factor)
        self.optimizer.step(divisor, is_held.float())
        self.optimizer.zero_grad()
        self.note_bad(step, ~loss.isfinite() | (overflowed & self.loss_scale.is_exhausted()))
        self.loss_scale.update(overflowed.float())
        return norm

    def grad_norm(self) -> Tensor:
        """Return the norm of the whole gradient."""
        gradients = [parameter.grad for parameter in self.optimizer.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.sharding is None:
            return norm
        return all_reduce(self.accelerator, norm.square(), dist.ReduceOp.SUM).sqrt()

    def note_bad(self, step: int, is_bad: Tensor) -> None:
        """Remember the first step that was bad."""
        self.first_bad_step = torch.where(is_bad, self.first_bad_step.clamp(max=step), self.first_bad_step)

    def note_bad_state(self, step: int) -> None:
        """Note a step after which a weight or moment is not finite."""
        state = (*self.state.weights().values(), *self.optimizer.state_tensors().values())
        tensors = [tensor for tensor in state if tensor.numel()]
        self.note_bad(step, ~nn.utils.get_total_norm(tensors, math.inf).isfinite())

    def warm_up(self, step: int, micro_batches: list[MicroBatch], *, with_optimizer: bool = False) -> None:
        """Run a pass of every shape and drop its gradients, so that compiling is over before the first step is timed.

        `with_optimizer` makes its state as well, and an update that is held back.
        """
        work = StepWork(step, sum(micro_batch.count for micro_batch in micro_batches), 0, ())
        shapes: set[tuple[Any, ...]] = set()
        for micro_batch in micro_batches:
            batch = micro_batch.load()
            shape = tuple((name, tuple(tensor.shape)) for name, tensor in batch.items())
            if shape not in shapes:
                shapes.add(shape)
                self.backward(work, Share(micro_batch, 1.0, is_last=False), batch)
        if with_optimizer:
            held = torch.ones((), device=self.accelerator.device)
            self.optimizer.drop_frozen_gradients(step)
            self.optimizer.step(held, held)
        self.drop_gradients()

    def drop_gradients(self) -> None:
        if self.sharding is not None:
            self.sharding.move_gradients_to_shards()
        self.optimizer.zero_grad()


def seed_generator(device: torch.device, seed: int) -> None:
    """Seed what dropout draws from; torch.manual_seed formats a stack trace for every device that is not there."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
