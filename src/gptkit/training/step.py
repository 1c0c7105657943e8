"""One optimizer update, which never synchronizes with the device: forward, backward, clipping, loss scale, spikes."""

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

from gptkit.training.batches import Batch, GlobalBatch, MicroBatch, dropout_seed
from gptkit.training.checkpoints import TrainState
from gptkit.training.job import LossFunction, TrainingJob
from gptkit.training.processes import all_reduce
from gptkit.training.sharding import Sharding

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
NEVER = 2**62  # the first bad step of a run that has had none

# fp16's loss scale, and the clean steps after which it doubles.
INITIAL_SCALE, LARGEST_SCALE, CLEAN_STEPS = 2.0**16, 2.0**24, 2000

# Spikes.
WINDOW = 128  # steps of history
LOSS_SIGMAS, NORM_SIGMAS = 6.0, 10.0  # standard deviations above the mean that make a spike
LEAST_NORM = 1e-30  # stands for a norm of 0, whose logarithm is infinite
MOST_IN_A_ROW = 10  # skipped steps, after which a run counts as diverged
COUNTS = ("seen", "skipped", "in_a_row")  # of SpikeHistory, in a checkpoint


def autocast(device: str, precision: str) -> Any:
    """Return the context of a forward pass: matrix products in 16 bits from fp32 weights, or nothing for fp32."""
    return torch.autocast(device, AUTOCAST[precision]) if precision in AUTOCAST else nullcontext()


@contextmanager
def uncompiled(is_compiled: bool) -> Iterator[None]:
    """Run compiled modules eagerly."""
    if not is_compiled:  # avoids importing the compiler
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


class LossModule(nn.Module):
    """The model and its loss as one module, so that DDP wraps both and the loss function sees the bare model."""

    def __init__(self, model: nn.Module, loss_function: LossFunction) -> None:
        super().__init__()
        self.model = model
        self.loss_function = loss_function

    def forward(self, batch: Batch, count: Tensor) -> Tensor:
        return self.loss_function(self.model, batch, count)


class LossScale:
    """fp16's loss scale, on the device: halved after an overflow, doubled after 2000 clean steps; else always 1."""

    def __init__(self, device: torch.device, *, dynamic: bool) -> None:
        self.dynamic = dynamic
        self.scale = torch.tensor(INITIAL_SCALE if dynamic else 1.0, device=device)
        self.clean_steps = torch.tensor(0.0, device=device)

    def is_exhausted(self) -> Tensor:
        """Return whether the scale is at its minimum, so that an overflow is the model's own."""
        return self.scale <= 1.0

    def update(self, found_inf: Tensor) -> None:
        """Adjust the scale after a step whose gradients overflowed (1) or did not (0)."""
        if not self.dynamic:
            return
        overflowed = found_inf > 0
        clean_steps = torch.where(overflowed, 0.0, self.clean_steps + 1)
        is_due = clean_steps >= CLEAN_STEPS
        grown = torch.where(is_due, (self.scale * 2).clamp(max=LARGEST_SCALE), self.scale)
        self.scale = torch.where(overflowed, (self.scale / 2).clamp(min=1.0), grown)
        self.clean_steps = torch.where(is_due, 0.0, clean_steps)

    def as_numbers(self) -> tuple[float, float] | None:
        """Return the state for a checkpoint; synchronizes the device."""
        return (float(self.scale), float(self.clean_steps)) if self.dynamic else None

    def load(self, numbers: Sequence[float]) -> None:
        """Restore the state that a checkpoint stored."""
        self.scale, self.clean_steps = (torch.tensor(number, device=self.scale.device) for number in numbers)


class SpikeHistory:
    """`--on-spike skip`: detects, on the device, steps whose loss or gradient norm spikes, which are then skipped.

    A spike is a loss more than 6 standard deviations above the mean of the last 128 steps, or a log gradient norm more
    than 10 above. The norm's bound is wider because norms have a heavy tail: in 25,000 undisturbed steps of a small
    model, 32 norms lay beyond 6 deviations, 1 log norm beyond 10, and no loss beyond 6. Values are clipped to the
    threshold before they enter the history, so that a spike hardly widens it but a lasting rise is accepted in time.

    `values` are the last `WINDOW` losses and log norms (2, WINDOW), newest last; the rest are counts.
    """

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(2, WINDOW, device=device)
        self.seen, self.skipped, self.in_a_row = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(3))

    def detect(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Return whether to skip a step, and record it; `loss` and `norm` are scalars of the whole step, on the device.

        Nothing is a spike until the history is full. Non-finite values are not spikes and stay out of the history: they
        end the run, or are an overflow of fp16's scale. After too many skips in a row, every step is skipped.
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
        """Return the state for a checkpoint; synchronizes the device."""
        return {"values": self.values.tolist(), **{name: int(getattr(self, name)) for name in COUNTS}}

    def load(self, numbers: Mapping[str, Any]) -> None:
        """Restore the state that a checkpoint stored."""
        for name in ("values", *COUNTS):
            setattr(self, name, torch.tensor(numbers[name], device=self.values.device))


@dataclass(frozen=True)
class StepResult:
    """A step's loss and gradient norm, both over all processes and still on the device.

    `data_seconds` is how long this process waited for its batches.
    """

    loss: Tensor
    grad_norm: Tensor
    tokens: int
    data_seconds: float


class Trainer:
    """Trains a job on one process: model, optimizer, loss scale and spike history.

    With `shards` each process keeps only its rows of weights, gradients and moments, and every `backward` reduces
    gradients. `first_bad_step` lives on the device and is NEVER until something was not finite. `parts` is the state
    that a checkpoint stores beside tensors: state.json keeps each under its name, through `as_numbers` and `load`.
    """

    def __init__(self, job: TrainingJob, accelerator: Accelerator, *, shards: bool = False) -> None:
        device, plan = accelerator.device, job.plan
        self.job, self.accelerator, self.optimizer = job, accelerator, job.optimizer
        self.sharding = Sharding(job.model, job.optimizer, device, accelerator.num_processes) if shards else None
        model = job.model if self.sharding is None else self.sharding.sharded
        if plan.compile:
            job.compile_blocks(model)
        self.objective: nn.Module = LossModule(model, job.loss_function)
        if accelerator.num_processes > 1 and not shards:
            self.objective = accelerator.prepare_model(self.objective)
        self.tensors = TrainState(job.model, job.optimizer, self.sharding)
        self.loss_scale = LossScale(device, dynamic=plan.precision == "fp16")
        self.spikes = SpikeHistory(device) if plan.skip_spikes else None
        self.parts: dict[str, LossScale | SpikeHistory | None] = {"loss_scale": self.loss_scale, "spikes": self.spikes}
        self.first_bad_step = torch.tensor(NEVER, device=device)

    def autocast(self) -> Any:
        """Return the context of a forward pass."""
        return autocast(self.accelerator.device.type, self.job.plan.precision)

    def take_step(self, global_batch: GlobalBatch, learning_rate_factor: float) -> StepResult:
        """Run this process's micro-batches of one step, and update the weights if the gradient is finite."""
        losses, data_seconds = [], 0.0
        for micro_batch in global_batch.micro_batches:
            start = time.perf_counter()
            batch = micro_batch.load()
            data_seconds += time.perf_counter() - start
            losses.append(self.backward(global_batch, micro_batch, batch))
        loss = all_reduce(self.accelerator, torch.stack(losses).sum(), dist.ReduceOp.SUM)
        grad_norm = self.update(loss, global_batch.step, learning_rate_factor)
        return StepResult(loss, grad_norm, global_batch.tokens, data_seconds)

    def backward(self, global_batch: GlobalBatch, micro_batch: MicroBatch, batch: Batch) -> Tensor:
        """Add one micro-batch's gradients and return its loss; the last one exchanges gradients between processes."""
        device = self.accelerator.device
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        # A tensor, because a compiler would take a number for a constant; filled, because a copy would synchronize.
        count = torch.full((), float(global_batch.count), device=device)
        seed_generator(device, dropout_seed(self.job.plan.seed, global_batch.step, micro_batch.first_row))
        with nullcontext() if micro_batch.is_last else self.accelerator.no_sync(self.objective):
            with self.autocast():
                loss = self.objective(moved, count)
            # DDP and FSDP average gradients over the processes; the step's gradient is their sum.
            scaled = loss * (micro_batch.weight * self.accelerator.num_processes)
            self.accelerator.backward(scaled * self.loss_scale.scale if self.loss_scale.dynamic else scaled)
        weighted_loss: Tensor = loss.detach().float() * micro_batch.weight
        return weighted_loss

    @torch.no_grad()
    def update(self, loss: Tensor, step: int, learning_rate_factor: float) -> Tensor:
        """Clip the gradient and update, unless the step is a spike or not finite; return the norm before clipping."""
        scale, clip_norm = self.loss_scale.scale, self.job.plan.clip_norm
        if self.sharding is not None:
            self.sharding.move_gradients_to_shards()
        self.optimizer.drop_frozen_gradients(step)
        norm = self.grad_norm() / scale
        overflowed, is_bad_loss = ~norm.isfinite(), ~loss.isfinite()
        is_skipped = overflowed | is_bad_loss
        if self.spikes is not None:
            is_skipped = is_skipped | self.spikes.detect(loss, norm)
        divisor = scale * (norm / clip_norm).clamp(min=1.0) if clip_norm else scale
        self.optimizer.set_learning_rate(learning_rate_factor)
        self.optimizer.step(divisor, is_skipped.float())
        self.optimizer.zero_grad()
        # An overflow only lowers fp16's scale, unless that cannot get lower.
        self.note_bad(step, is_bad_loss | (overflowed & self.loss_scale.is_exhausted()))
        self.loss_scale.update(overflowed.float())
        return norm

    def grad_norm(self) -> Tensor:
        """Return the global gradient norm, over all shards."""
        gradients = [parameter.grad for parameter in self.optimizer.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.sharding is None:
            return norm
        return all_reduce(self.accelerator, norm.square(), dist.ReduceOp.SUM).sqrt()

    def note_bad(self, step: int, is_bad: Tensor) -> None:
        """Record the first bad step."""
        self.first_bad_step = torch.where(is_bad, self.first_bad_step.clamp(max=step), self.first_bad_step)

    def note_bad_state(self, step: int) -> None:
        """Record a step after which a weight or moment is not finite."""
        state = (*self.tensors.weights().values(), *self.optimizer.state_tensors().values())
        tensors = [tensor for tensor in state if tensor.numel()]
        self.note_bad(step, ~nn.utils.get_total_norm(tensors, math.inf).isfinite())

    def warm_up(self, step: int, micro_batches: list[MicroBatch], *, with_optimizer: bool = False) -> None:
        """Run one pass of every shape and drop its gradients, so that compilation is done before the first timed step.

        `with_optimizer` also creates the optimizer's state, by an update that changes nothing.
        """
        global_batch = GlobalBatch(step, sum(micro_batch.count for micro_batch in micro_batches), 0, ())
        shapes: set[tuple[Any, ...]] = set()
        for micro_batch in micro_batches:
            batch = micro_batch.load()
            shape = tuple((name, tuple(tensor.shape)) for name, tensor in batch.items())
            if shape not in shapes:
                shapes.add(shape)
                self.backward(global_batch, micro_batch, batch)
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
    """Seed dropout's generator; torch.manual_seed is slow, it formats a stack trace for every absent device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
