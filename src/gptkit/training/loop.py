"""The training loop: given a model, batches and a loss function, it trains, evaluates, saves and yields events.

It knows nothing about tasks, model classes or displays. A run's state is its weights, moments and a few numbers:
batches are a pure function of the step and dropout is reseeded for each micro-batch, so there is no generator state to
save.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from gptkit.errors import AGAIN, Diverged, Interrupted
from gptkit.system.limits import translate_out_of_memory
from gptkit.system.signals import StopRequest
from gptkit.training import checkpoints
from gptkit.training.batches import Batches, GlobalBatch, StopEvaluation, global_batch, prefetched
from gptkit.training.checkpoints import RunState
from gptkit.training.job import CheckpointEvent, EvalEvent, Event, NoticeEvent, StepEvent, TrainingJob
from gptkit.training.memory import fitting_micro_batch, may_run_out
from gptkit.training.processes import AgreedStop, all_reduce
from gptkit.training.step import NEVER, Trainer, uncompiled

DIVERGED_FIX = "start a new run (another --out) with a lower --learning-rate, more --warmup-steps, or --precision fp32"


def train(
    job: TrainingJob,
    accelerator: Accelerator,
    *,
    checkpoint_directory: Path | None = None,
    snapshot_directory: Path | None = None,
    resume_from: Path | None = None,
    stop: StopRequest | None = None,
    shards: bool = False,
) -> Iterator[Event]:
    """Train the job's model in place up to `plan.steps`; every process runs this and yields the same events.

    The job is evaluated every `eval_every` steps and after the last. Checkpoints are saved every `save_every` steps,
    after the last, at a new best and on a stop; snapshots follow the plan. `resume_from` is a verified checkpoint with
    the plan's identity. `shards` splits weights, gradients and moments over the processes; the model itself then holds
    its weights only between an evaluation and the next step, and at the end. On a GPU that lacks the memory for the
    job's micro-batches they are made smaller; the checkpoints' choices record the size as `micro_batch`.

    Raises Diverged at the first log step after a loss or gradient was not finite (weights and moments were left
    unchanged) or after too many spikes in a row, and when an evaluation or a save finds something not finite;
    Interrupted once a checkpoint is committed after `stop` was requested; OutOfResources when disk or memory runs out.
    """
    run = _Run(Trainer(job, accelerator, shards=shards), checkpoint_directory, stop or StopRequest())
    if resume_from is not None:
        run.resume(resume_from)
    with translate_out_of_memory(f"lower --micro-batch (the tokens per step stay the same); then {AGAIN}"):
        yield from run.finish_evaluation()
        batches = yield from run.fit()
        yield from run.compile(batches)
        with closing(run.global_batches(batches)) as global_batches:
            for step in range(run.state.step + 1, job.plan.steps + 1):
                run.advance(step, global_batches)
                yield from run.report(step)
                if snapshot_directory is not None and job.plan.is_snapshot_due(step):
                    run.take_snapshot(snapshot_directory)
                yield from run.save_or_stop(step)
    yield run.finish()


class _Run:
    """The state of one call of `train`."""

    def __init__(self, trainer: Trainer, directory: Path | None, stop: StopRequest) -> None:
        self.trainer, self.directory = trainer, directory
        self.job, self.plan, self.accelerator = trainer.job, trainer.job.plan, trainer.accelerator
        self.model, self.sharding = trainer.job.model, trainer.sharding
        self.stop = AgreedStop(stop, self.accelerator)
        self.started = time.perf_counter()
        self.state = RunState(**self._of_plan())
        self.row: StepEvent | None = None  # of the last step, if one is due
        self.saved_step = 0
        self.earlier_seconds = 0.0
        self.row_tokens = self.row_seconds = 0.0  # at the last row
        self.data_seconds = 0.0  # since the last row

    def _of_plan(self) -> dict[str, Any]:
        """Return what a state has of the plan."""
        return {"steps": self.plan.steps, "identity": dict(self.plan.identity), "choices": dict(self.plan.choices)}

    def resume(self, checkpoint: Path) -> None:
        """Restore a checkpoint."""
        saved = checkpoints.load(checkpoint, self.trainer.tensors)
        self.state = dataclasses.replace(saved, **self._of_plan())
        self.saved_step, self.earlier_seconds = saved.step, saved.elapsed_seconds
        self.row_tokens, self.row_seconds = saved.tokens, saved.train_seconds
        for name, part in self.trainer.parts.items():
            if part is not None and saved.parts.get(name) is not None:
                part.load(saved.parts[name])

    def finish_evaluation(self) -> Iterator[Event]:
        """Repeat an evaluation that a signal interrupted."""
        if self.state.unfinished_row is not None:
            self.row = StepEvent.from_row(self.state.unfinished_row)
            yield from self._evaluate(self.state.step)
            yield from self.save_or_stop(self.state.step)

    def fit(self) -> Generator[Event, None, Batches]:
        """Return the batches, in micro-batches that fit into memory; with sharding, no process can try a size alone."""
        micro_batching, has_steps = self.job.micro_batching, self.state.step < self.plan.steps
        is_tried = micro_batching.largest is not None and may_run_out(self.accelerator.device)
        if not (is_tried and has_steps and self.sharding is None):
            return micro_batching.batches
        self.model.train()
        size = fitting_micro_batch(self.trainer, self.state.step + 1)
        if size < micro_batching.micro_batch:
            self.state.choices["micro_batch"] = size
            yield NoticeEvent(micro_batching.shrink_notice(size))
        return micro_batching.batches_of(size)

    def compile(self, batches: Batches) -> Iterator[Event]:
        """Compile what the next steps need, if the plan asks for it."""
        if not self.plan.compile or self.state.step == self.plan.steps:
            return
        start, step = time.perf_counter(), self.state.step + 1
        self.model.train()
        try:
            self.trainer.warm_up(step, batches(step))
        except Exception as error:
            if number := self.stop.received:  # a signal to the process group also kills the compiler
                raise self._interrupted(number) from error
            raise
        seconds = time.perf_counter() - start
        self.state.compile_seconds += seconds
        yield NoticeEvent(f"compiled in {seconds:.1f} s")
        if signal_number := self.stop.signal_number():  # compiling takes up to minutes
            raise self._interrupted(signal_number)

    def global_batches(self, batches: Batches) -> Generator[GlobalBatch, None, None]:
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        steps = range(self.state.step + 1, self.plan.steps + 1)
        each = (global_batch(step, batches(step), process, processes) for step in steps)
        kind = self.accelerator.device.type
        return each if kind == "cpu" else prefetched(each, pin=kind == "cuda")

    def advance(self, step: int, global_batches: Iterator[GlobalBatch]) -> None:
        """Take one step and set `row` if one is due; only then synchronize with the device."""
        start = time.perf_counter()
        batch = next(global_batches)
        self.data_seconds += time.perf_counter() - start
        if self.sharding is not None:
            self.sharding.free_weights()
        if not self.model.training:
            self.model.train()
        result = self.trainer.take_step(batch, self.job.schedule(step))
        self.data_seconds += result.data_seconds
        has_row = self.plan.is_log_due(step) or self._is_eval_due(step)
        loss = self._checked_loss(result.loss) if has_row else 0.0
        self.state.step = step
        self.state.tokens += result.tokens
        self.state.train_seconds += time.perf_counter() - start
        self.state.unfinished_row = None
        self.row = self._row_of(loss, float(result.grad_norm)) if has_row else None

    def report(self, step: int) -> Iterator[Event]:
        """Yield the evaluation and the row, if they are due."""
        if self._is_eval_due(step):
            yield from self._evaluate(step)
        elif self.row is not None:
            yield self.row

    def save_or_stop(self, step: int) -> Iterator[Event]:
        """Commit a checkpoint if one is due or a stop was requested; then stop if requested."""
        signal_number = self._agreed_signal(step)
        is_due = signal_number or self.plan.is_save_due(step) or step == self.state.best_step
        if self.directory is not None and step != self.saved_step and is_due:
            yield self._save(self.directory)
            signal_number = signal_number or self._agreed_signal(step)
        if signal_number:
            raise self._interrupted(signal_number)

    def finish(self) -> RunState:
        self.gather_weights()
        self.state.elapsed_seconds = self._elapsed()
        return self.state

    def _interrupted(self, signal_number: int) -> Interrupted:
        where = f"step {self.state.step}"
        if self.directory is not None:
            where = f"step {self.saved_step} of {self.plan.steps} is saved" if self.saved_step else "before step 1"
        message = f"interrupted by {signal.Signals(signal_number).name}"
        return Interrupted(message, signal_number=signal_number, where=where, fix=AGAIN)

    def _checked_loss(self, loss: Tensor) -> float:
        """Return the last step's loss; raise Diverged if any step so far was not finite."""
        self._check_finite_steps()
        spikes = self.trainer.spikes
        if spikes is not None and spikes.is_hopeless():
            count = int(spikes.in_a_row)
            raise _diverged(f"{count} steps in a row were skipped as spikes", self.state.step + 2 - count)
        return float(loss)

    def _check_finite_steps(self) -> None:
        first_bad = int(all_reduce(self.accelerator, self.trainer.first_bad_step.clone(), dist.ReduceOp.MIN))
        if first_bad != NEVER:
            raise _diverged("the loss, its gradient or the weights stopped being finite", first_bad)

    def _check_finite_state(self) -> None:
        self.trainer.note_bad_state(self.state.step)
        self._check_finite_steps()

    def _row_of(self, loss: float, grad_norm: float) -> StepEvent:
        tokens, seconds = self.state.tokens, self.state.train_seconds
        rate = (tokens - self.row_tokens) / (seconds - self.row_seconds)
        self.row_tokens, self.row_seconds = tokens, seconds
        data_seconds, self.data_seconds = self.data_seconds, 0.0
        spikes = self.trainer.spikes
        return StepEvent(
            step=self.state.step,
            tokens=tokens,
            loss=loss,
            learning_rate=self.job.optimizer.learning_rate * self.job.schedule(self.state.step),
            grad_norm=grad_norm,
            tokens_per_second=rate,
            elapsed_seconds=self._elapsed(),
            data_seconds=data_seconds,
            skipped_steps=None if spikes is None else int(spikes.skipped),
        )

    def _is_eval_due(self, step: int) -> bool:
        return self.job.evaluate is not None and self.plan.is_eval_due(step)

    def _evaluate(self, step: int) -> Iterator[Event]:
        """Yield the evaluation and its row; if a signal interrupts it, keep the row for the checkpoint."""
        assert self.row is not None
        assert self.job.evaluate is not None
        start = time.perf_counter()
        self.gather_weights()
        self.model.eval()
        try:
            with torch.no_grad(), self.trainer.autocast(), uncompiled(self.plan.compile):
                metrics = self.job.evaluate(self.stop.for_evaluation())
        except StopEvaluation:
            row = {name: value for name, value in dataclasses.asdict(self.row).items() if name != "evaluation"}
            self.state.unfinished_row = row
            return
        self.state.unfinished_row = None
        losses = [value for name, value in metrics.items() if name.endswith("_loss")]
        if not all(map(math.isfinite, losses)):  # another metric may be undefined
            yield self.row
            raise _diverged("the validation loss is not finite", step)
        if (name := self.plan.best_by) is not None:
            value = None if math.isnan(metrics[name]) else metrics[name]  # undefined, which any figure beats
            best = self.state.best_value
            if self.state.best_step is None or (value is not None and (best is None or value > best)):
                self.state.best_step, self.state.best_value = step, value
        yield EvalEvent(step, metrics, time.perf_counter() - start)
        yield dataclasses.replace(self.row, evaluation=metrics)

    def gather_weights(self) -> None:
        """Gather sharded weights into the model; every process must call this."""
        if self.sharding is not None:
            self.sharding.gather_weights()

    def _agreed_signal(self, step: int) -> int:
        """Return the signal that any process received; several GPUs agree only where they synchronize anyway."""
        is_single, is_cpu = self.accelerator.num_processes == 1, self.accelerator.device.type == "cpu"
        waits = is_single or is_cpu or self.row is not None or self.plan.is_save_due(step)
        return self.stop.signal_number() if waits else 0

    def take_snapshot(self, directory: Path) -> None:
        """Commit the full weights of the step just taken, before its checkpoint."""
        self._check_finite_state()
        self.gather_weights()
        checkpoints.write_snapshot(directory, self.model, self.state.step, accelerator=self.accelerator)

    def _save(self, directory: Path) -> CheckpointEvent:
        """Commit the state of the step just taken; nothing is saved once something was not finite."""
        start, state, plan = time.perf_counter(), self.state, self.plan
        self._check_finite_state()
        state.parts = {name: part and part.as_numbers() for name, part in self.trainer.parts.items()}
        state.elapsed_seconds = self._elapsed()
        path = checkpoints.write(
            directory,
            self.trainer.tensors,
            state,
            accelerator=self.accelerator,
            keep=plan.keep_checkpoints,
            keep_step=plan.decay_start,
        )
        self.saved_step = state.step
        return CheckpointEvent(state.step, path, time.perf_counter() - start)

    def _elapsed(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.started


def _diverged(message: str, step: int) -> Diverged:
    error = Diverged(message, where=f"step {step}", fix=DIVERGED_FIX)
    error.step = step
    return error
