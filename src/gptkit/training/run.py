"""One training run of any command: begun or taken up again, followed on the screen and in its directory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch.distributed as dist
from accelerate import Accelerator

from gptkit.console import Console, Progress
from gptkit.errors import Diverged, InputError
from gptkit.system import ranks
from gptkit.system.run_layout import RESULT
from gptkit.system.signals import StopRequest
from gptkit.training import rules, sharding
from gptkit.training.checkpoints import RunState
from gptkit.training.finished_runs import lost_result
from gptkit.training.job import CheckpointEvent, EvalEvent, Event, NoticeEvent, StepEvent, TrainingJob
from gptkit.training.loop import train
from gptkit.training.metrics import Tracker, check_tracker
from gptkit.training.options import TrainingOptions
from gptkit.training.processes import main_process_first, make_accelerator, on_main_process
from gptkit.training.rules import Choices, Hardware, hardware_of, known_peak, measured_peak
from gptkit.training.run_directory import RunDirectory, check_run, open_run
from gptkit.training.run_identity import continues, identity_before
from gptkit.training.step import uncompiled

T = TypeVar("T")
Sample = Callable[[], str | None]  # the model's text at an evaluation, asked of the main process alone


@dataclass(frozen=True)
class TrainResult:
    """What a run came to; `sample` is the last one."""

    finish: RunState
    choices: Choices
    resumed_from: int | None
    mfu: float | None
    sample: str | None


@dataclass(frozen=True)
class Session:
    """The processes of one command, what they compute on, and the screen."""

    accelerator: Accelerator
    hardware: Hardware
    console: Console

    @classmethod
    def start(cls, device: str, console: Console) -> Session:
        """Join the processes of the run; see `make_accelerator` for what it raises."""
        accelerator = make_accelerator(device)
        return cls(accelerator, hardware_of(accelerator.device), console)

    def check(self, options: TrainingOptions, *, command: str) -> Choices:
        """Refuse what can be refused before any text is read.

        Return the arithmetic of a run that compiles only where it is told to: how much there is to do is not known.
        """

        def refuse() -> Choices:
            check_run(options, command=command)
            check_tracker(options.report_to)
            return rules.choose(options.precision, options.compile, self.hardware)

        return self.on_main(refuse)

    def on_main(self, work: Callable[[], T]) -> T:
        return on_main_process(self.accelerator, work)

    def main_first(self, work: Callable[[], T]) -> T:
        return main_process_first(self.accelerator, work)

    def open_run(self, options: TrainingOptions, *, command: str, name: str) -> RunDirectory:
        """Open the run on the main process, which alone holds its lock; the others get its path."""
        opened: list[RunDirectory] = []

        def open_here() -> Path:
            opened.append(open_run(options, command=command, name=name))
            ranks.report_run(opened[0].path)
            return opened[0].path

        path = self.on_main(open_here)
        return opened[0] if opened else RunDirectory(path, command, lock=None)


def finish_run(directory: RunDirectory, result: Mapping[str, Any]) -> dict[str, Any]:
    """Write result.json with the seconds of the whole process, and return it."""
    return directory.finish({**result, "elapsed_seconds": time.time() - psutil.Process().create_time()})


def train_run(
    make_job: Callable[[Choices], TrainingJob],
    options: TrainingOptions,
    choices: Choices,
    directory: RunDirectory,
    session: Session,
    *,
    write_start: Callable[[Path], None],
    sample: Sample | None = None,
) -> TrainResult:
    """Train from the newest whole checkpoint of the directory, or from the start, to the end.

    `write_start` writes config.json and tokenizer into an empty directory.
    """
    console, accelerator = session.console, session.accelerator
    found, state = session.on_main(lambda: directory.newest(lambda state: continues(state, options)))
    if found.path is not None:
        choices = rules.reuse(state.choices, choices, session.hardware)
    elif lost := lost_result(directory.path):
        fix = f"restore it from a copy, or remove {directory.path / RESULT} to train from scratch"
        raise InputError(
            f"the run was finished, but {lost}, and it has no checkpoint", where=str(directory.path), fix=fix
        )
    for note in choices.notes:
        console.say(note)
    job = make_job(choices)

    def rewind() -> list[str]:
        identity = identity_before(job.plan.identity, state, options)
        keep, keep_step = job.plan.keep_checkpoints, job.plan.decay_start
        lines = directory.rewind(found, state, identity=identity, keep=keep, keep_step=keep_step)
        directory.write_start(write_start)
        return lines

    for line in session.on_main(rewind):
        console.warn(line)
    if found.path is not None:
        console.say(f"resuming from step {state.step} of {job.plan.steps} ({found.path})")
    with ExitStack() as stack:
        tracker = None
        if options.report_to != "none" and accelerator.is_main_process:
            tracker = Tracker(options.report_to, directory.path, dataclasses.asdict(options))
            stack.callback(tracker.close)
        events = train(
            job,
            accelerator,
            checkpoint_directory=directory.checkpoints,
            snapshot_directory=directory.snapshots,
            resume_from=found.path,
            stop=stack.enter_context(StopRequest(console.say)),
            shards=sharding.is_asked() and dist.is_initialized(),  # a process alone has nobody to share with
        )
        is_cpu = session.hardware.kind == "cpu"
        peak = measured_peak(choices.precision) if is_cpu else known_peak(session.hardware, choices.precision)
        reporter = RunReporter(job, directory, session, tracker, peak, sample)
        try:
            finish = reporter.follow(events, stack.enter_context(console.progress(job.plan.steps)))
        except Diverged as error:
            directory.note_divergence(error, job.micro_batching.batches(error.step))
            raise
    resumed_from = state.step if found.path is not None else None
    return TrainResult(finish, choices, resumed_from, reporter.mfu(finish.tokens_per_second), reporter.text)


@dataclass
class RunReporter:
    """The events of a run as they come: written to its directory, shown, sent to a tracker."""

    job: TrainingJob
    directory: RunDirectory
    session: Session
    tracker: Tracker | None
    peak: float | None  # the FLOP/s that MFU is a share of
    sample: Sample | None
    text: str | None = None  # of the last sample

    def mfu(self, tokens_per_second: float) -> float | None:
        if self.peak is None:
            return None
        peak: float = self.peak * self.session.accelerator.num_processes
        return tokens_per_second * self.job.flops_per_token / peak

    def follow(self, events: Iterator[Event], progress: Progress) -> RunState:
        """Take in every event; a run that comes to its end closes with its state."""
        for event in events:
            match event:
                case StepEvent():
                    self._step(event, progress)
                case EvalEvent():
                    if self.sample is not None and self.session.accelerator.is_main_process:
                        with uncompiled(self.job.plan.compile):
                            self.text = self.sample()
                    progress.evaluation(event.step, event.metrics, sample=self.text)
                case CheckpointEvent():
                    progress.checkpoint(event.step)
                case NoticeEvent():
                    progress.say(event.message)
                case RunState():
                    finish = event
        return finish

    def _step(self, event: StepEvent, progress: Progress) -> None:
        mfu = self.mfu(event.tokens_per_second)
        progress.step(event.step, {**event.figures(), "mfu": "n/a" if mfu is None else f"{mfu:.1%}"})
        if self.session.accelerator.is_main_process:
            self.directory.append(event)
            if self.tracker is not None:
                self.tracker.log(event)
