"""Begin or resume one training run of any command, and report its events on the screen and in its directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist
from accelerate import Accelerator

from gptkit.console import Console, Progress
from gptkit.errors import Diverged, InputError
from gptkit.system import ranks
from gptkit.system.run_layout import RESULT
from gptkit.system.signals import StopRequest
from gptkit.training import rules, sharding
from gptkit.training.checkpoints import RunState, newest_committed
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
Sample = Callable[[], str | None]  # returns text generated at an evaluation; only called on the main process


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a run; `sample` is the text of its last evaluation."""

    finish: RunState
    choices: Choices
    resumed_from: int | None
    mfu: float | None
    sample: str | None


@dataclass(frozen=True)
class Session:
    """The processes of a command, their hardware, and the console."""

    accelerator: Accelerator
    hardware: Hardware
    console: Console

    @classmethod
    def start(cls, device: str, console: Console) -> Session:
        """Join the process group; raises what `make_accelerator` raises."""
        accelerator = make_accelerator(device)
        return cls(accelerator, hardware_of(accelerator.device), console)

    def check(self, options: TrainingOptions, *, command: str) -> Choices:
        """Raise all errors that can be found before any text is read.

        Return the run's choices; `--compile auto` is off in them, as the amount of work is not known yet.
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
        """Open the run on the main process, which holds its lock; the others only get its path."""
        opened: list[RunDirectory] = []

        def open_here() -> Path:
            opened.append(open_run(options, command=command, name=name))
            ranks.report_run(opened[0].path)
            return opened[0].path

        path = self.on_main(open_here)
        return opened[0] if opened else RunDirectory(path, command, lock=None)


def train_run(
    make_job: Callable[[Choices], TrainingJob],
    options: TrainingOptions,
    choices: Choices,
    directory: RunDirectory,
    session: Session,
    *,
    write_start: Callable[[Path], None],
    sample: Sample | None = None,
    before: str = "sample before training",
) -> TrainResult:
    """Train to the end, from the directory's newest usable checkpoint or else from the start.

    `write_start` writes config.json and tokenizer into an empty directory; `before` introduces the first sample.
    """
    console, accelerator = session.console, session.accelerator
    found = session.on_main(lambda: newest_committed(directory.checkpoints, lambda state: continues(state, options)))
    if found.path is not None:
        choices = rules.reuse(found.state.choices, choices, session.hardware)
    elif lost := lost_result(directory.path):
        fix = f"restore it from a copy, or remove {directory.path / RESULT} to train from scratch"
        message = f"the run was finished, but {lost}, and it has no checkpoint"
        raise InputError(message, where=str(directory.path), fix=fix)
    for note in choices.notes:
        console.say(note)
    job = make_job(choices)

    def rewind() -> list[str]:
        identity = identity_before(job.plan.identity, found.state, options)
        keep, keep_step = job.plan.keep_checkpoints, job.plan.decay_start
        lines = directory.rewind(found, identity=identity, keep=keep, keep_step=keep_step)
        directory.write_start(write_start)
        return lines

    for line in session.on_main(rewind):
        console.warn(line)
    if found.path is not None:
        console.say(f"resuming from step {found.state.step} of {job.plan.steps} ({found.path})")
    elif sample is not None and accelerator.is_main_process:
        console.say(f'{before}  "{" ".join((sample() or "").split())[:160]}"')
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
            shards=sharding.is_asked() and dist.is_initialized(),
        )
        is_cpu = session.hardware.kind == "cpu"
        peak = measured_peak(choices.precision) if is_cpu else known_peak(session.hardware, choices.precision)
        reporter = RunReporter(job, directory, session, tracker, peak, sample)
        try:
            finish = reporter.follow(events, stack.enter_context(console.progress(job.plan.steps, found.state.step)))
        except Diverged as error:
            directory.note_divergence(error, job.micro_batching.batches(error.step))
            raise
    resumed_from = found.state.step if found.path is not None else None
    return TrainResult(finish, choices, resumed_from, reporter.mfu(finish.tokens_per_second), reporter.text)


@dataclass
class RunReporter:
    """Writes a run's events to its directory, shows them, and sends them to a tracker."""

    job: TrainingJob
    directory: RunDirectory
    session: Session
    tracker: Tracker | None
    peak: float | None  # FLOP/s of one process, for the MFU
    sample: Sample | None
    text: str | None = None  # of the last sample

    def mfu(self, tokens_per_second: float) -> float | None:
        if self.peak is None or not self.job.flops_per_token:
            return None
        peak: float = self.peak * self.session.accelerator.num_processes
        return tokens_per_second * self.job.flops_per_token / peak

    def follow(self, events: Iterator[Event], progress: Progress) -> RunState:
        """Report every event; return the RunState, which is the last one of a run that finishes."""
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
        figures = {**event.figures(), "mfu": "n/a" if mfu is None else f"{mfu:.1%}"}
        progress.step(event.step, figures, pace=event.tokens / event.step / event.tokens_per_second)
        if self.session.accelerator.is_main_process:
            self.directory.append(event)
            if self.tracker is not None:
                self.tracker.log(event)
