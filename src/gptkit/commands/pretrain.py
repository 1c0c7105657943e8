"""`gptkit pretrain`: raw text in, a run directory with a model out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from accelerate import Accelerator

import gptkit
from gptkit.console import Console, Progress
from gptkit.data.token_blocks import TrainingBlocks
from gptkit.data.tokenizers import fingerprint
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model.quiet import quiet_transformers
from gptkit.options import PretrainOptions
from gptkit.pretraining import report
from gptkit.pretraining.inputs import DEFAULT_MODEL, Inputs, prepare_inputs
from gptkit.pretraining.objective import language_modeling_loss, pretraining_batches, validate
from gptkit.reporting.loss_plot import draw_loss
from gptkit.training import rules
from gptkit.training.events import CheckpointEvent, EvalEvent, Event, FinishEvent, NoticeEvent, StepEvent
from gptkit.training.files import failures_told
from gptkit.training.hardware import Hardware, hardware_of
from gptkit.training.loop import Evaluate, Plan, train, uncompiled
from gptkit.training.memory import keep_freed_memory
from gptkit.training.optimizers import build_optimizer
from gptkit.training.processes import make_accelerator, on_main_process
from gptkit.training.rules import Choices
from gptkit.training.run_directory import RunDirectory, open_run, read_result
from gptkit.training.schedules import learning_rate_factor
from gptkit.training.signals import StopRequest
from gptkit.training.trackers import Tracker


def run(options: PretrainOptions, console: Console) -> dict[str, Any]:
    """Train, validate and save as the options say; return what `--json` prints."""
    accelerator = make_accelerator(options.device)
    if options.out is not None and options.resume == "auto" and read_result(options.out) is not None:
        return _finished(options, accelerator, console)
    keep_freed_memory()
    with accelerator.main_process_first():  # the others find the tokens in the cache
        inputs = prepare_inputs(options, console.say)
    hardware = hardware_of(accelerator.device)
    choices = _choices(options, inputs, hardware)
    if options.dry_run:
        facts = report.plan_facts(options, inputs, choices)
        console.table("the plan", ("what", "value"), [(name, report.shown(value)) for name, value in facts.items()])
        return facts
    with ExitStack() as stack:
        directory = stack.enter_context(_open(options, accelerator))
        console.run_directory = directory.path
        return _train(options, inputs, choices, hardware, directory, accelerator, console, stack)


def _finished(options: PretrainOptions, accelerator: Accelerator, console: Console) -> dict[str, Any]:
    """Return the result of a run that is over, after the check that these are its options."""

    def read() -> dict[str, Any]:
        with open_run(options, command="pretrain", name="") as directory:
            assert directory.result is not None
            return directory.result

    result = on_main_process(accelerator, read)
    console.say(f"{result['run_dir']} is finished; this is its result")
    _tell(result, console)
    return result


def _choices(options: PretrainOptions, inputs: Inputs, hardware: Hardware) -> Choices:
    precision = rules.choose_precision(options.precision, hardware)
    compiles, note = rules.choose_compile(
        options.compile,
        hardware,
        precision,
        total_flops=inputs.flops_per_token * options.tokens_per_step * options.steps,
    )
    return Choices(precision, compiles, hardware.threads, hardware.kind, (note,) if note else ())


def _open(options: PretrainOptions, accelerator: Accelerator) -> RunDirectory:
    """Open the run on the main process, which alone holds its lock; the others get its path."""
    opened: list[RunDirectory] = []

    def open_here() -> Path:
        name = Path(options.model or DEFAULT_MODEL).stem
        opened.append(open_run(options, command="pretrain", name=name))
        return opened[0].path

    path = on_main_process(accelerator, open_here)
    return opened[0] if opened else RunDirectory(path, "pretrain", lock=None)


def _train(
    options: PretrainOptions,
    inputs: Inputs,
    choices: Choices,
    hardware: Hardware,
    directory: RunDirectory,
    accelerator: Accelerator,
    console: Console,
    stack: ExitStack,
) -> dict[str, Any]:
    found, state = on_main_process(accelerator, directory.rewind)
    for note in found.lines():
        console.warn(note)
    if found.path is not None:
        may_compile = hardware.compiler is not None
        choices = rules.reuse(state.choices, choices, may_compile=may_compile)
        console.say(f"going on from step {state.step} of {options.steps} ({found.path})")
    for note in choices.notes:
        console.say(note)
    model = inputs.model.to(accelerator.device)
    if choices.compile:
        model.compile_blocks()
    tracker = None
    if options.report_to != "none" and accelerator.is_main_process:
        tracker = Tracker(options.report_to, directory.path, dataclasses.asdict(options))
        stack.callback(tracker.close)
    events = train(
        model,
        _batches(options, inputs, hardware),
        language_modeling_loss,
        build_optimizer(model.named_parameters(), options, precision=choices.precision),
        _schedule(options),
        _plan(options, inputs, choices, directory),
        accelerator=accelerator,
        evaluate=_evaluation(inputs, model),
        checkpoint_directory=directory.checkpoints,
        resume_from=found.path,
        stop=stack.enter_context(StopRequest()),
    )
    peak = report.peak_flops(hardware, choices.precision)
    following = _Following(options, inputs, directory, accelerator, tracker, peak, choices.compile)
    with console.progress(options.steps) as progress:
        following.follow(events, progress)
    return _finish(following, choices, state.step if found.path else None, console)


def _batches(options: PretrainOptions, inputs: Inputs, hardware: Hardware) -> Any:
    config = inputs.model.config
    micro_batch = options.micro_batch or rules.choose_micro_batch(
        hardware,
        rows=inputs.rows_per_step,
        sequence_length=inputs.sequence_length,
        parameters=inputs.model.num_parameters(),
        n_layer=config.n_layer,
        n_embd=config.n_embd,
    )
    blocks = TrainingBlocks(inputs.text.train.ids, inputs.sequence_length, options.seed)
    return pretraining_batches(
        blocks,
        sequence_length=inputs.sequence_length,
        rows_per_step=inputs.rows_per_step,
        micro_batch=micro_batch,
    )


def _schedule(options: PretrainOptions) -> Any:
    return lambda step: learning_rate_factor(
        options.schedule,
        step,
        total_steps=options.steps,
        warmup_steps=options.warmup_steps,
        decay_steps=options.decay_steps,
        final=options.final_learning_rate,
    )


def _plan(options: PretrainOptions, inputs: Inputs, choices: Choices, directory: RunDirectory) -> Plan:
    eval_every = options.eval_every or max(1, options.steps // 10)
    return Plan(
        steps=options.steps,
        log_every=options.log_every,
        eval_every=eval_every,
        save_every=options.save_every or eval_every,
        keep_checkpoints=options.keep_checkpoints,
        clip_norm=options.clip_norm,
        seed=options.seed,
        precision=choices.precision,
        compile=choices.compile,
        resume_line=f"to go on: {directory.resume_line}",
        identity={
            "data_sha256": inputs.corpus.data_sha256,
            "tokenizer_sha256": fingerprint(inputs.tokenizer),
        },
        choices=choices.facts(),
    )


def _evaluation(inputs: Inputs, model: GPTForCausalLM) -> Evaluate:
    return lambda should_stop: validate(
        model,
        inputs.text.validation.ids,
        sequence_length=inputs.sequence_length,
        utf8_bytes=inputs.corpus.validation_bytes,
        should_stop=should_stop,
    )


@dataclass
class _Following:
    """The events of a run as they come: written to its directory, shown, and kept for its result."""

    options: PretrainOptions
    inputs: Inputs
    directory: RunDirectory
    accelerator: Accelerator
    tracker: Tracker | None
    peak: float | None
    compiled: bool
    finish: FinishEvent | None = None
    sample: str | None = None

    def mfu(self, tokens_per_second: float) -> float | None:
        if self.peak is None:
            return None
        peak: float = self.peak * self.accelerator.num_processes
        return tokens_per_second * self.inputs.flops_per_token / peak

    def follow(self, events: Iterator[Event], progress: Progress) -> None:
        for event in events:
            if isinstance(event, StepEvent):
                self._follow_step(event, progress)
            elif isinstance(event, EvalEvent):
                self._follow_evaluation(event, progress)
            elif isinstance(event, CheckpointEvent):
                progress.checkpoint(event.step)
            elif isinstance(event, NoticeEvent):
                progress.notice(event.message)
            else:
                self.finish = event

    def _follow_step(self, event: StepEvent, progress: Progress) -> None:
        progress.step(
            event.step,
            loss=event.loss,
            learning_rate=event.learning_rate,
            tokens_per_second=event.tokens_per_second,
            mfu=self.mfu(event.tokens_per_second),
        )
        if self.accelerator.is_main_process:
            self.directory.append(event)
            if self.tracker is not None:
                self.tracker.log(event)

    def _follow_evaluation(self, event: EvalEvent, progress: Progress) -> None:
        if self.accelerator.is_main_process and self.options.sample_tokens:
            tokens, seed = self.options.sample_tokens, self.options.seed
            with uncompiled(self.compiled):
                self.sample = report.sample_text(self.inputs.model, self.inputs.tokenizer, tokens=tokens, seed=seed)
        metrics = event.metrics
        progress.evaluation(
            event.step, val_loss=metrics["val_loss"], bits_per_byte=metrics["bits_per_byte"], sample=self.sample
        )


def _finish(following: _Following, choices: Choices, resumed_from: int | None, console: Console) -> dict[str, Any]:
    """Write model, card, curve and, last, the result."""
    directory, accelerator = following.directory, following.accelerator

    def write() -> dict[str, Any]:
        rows = directory.rows()
        last = rows[-1]
        finish = following.finish
        assert finish is not None
        rate = finish.tokens_per_second
        result = {
            "run_dir": str(directory.path),
            "model_dir": str(directory.path / "model"),
            "steps": finish.step,
            "tokens": finish.tokens,
            "train_loss": last["loss"],
            **{name: last[name] for name in ("val_loss", "val_perplexity", "bits_per_byte")},
            "tokens_per_second": rate,
            "mfu": following.mfu(rate),
            "train_seconds": finish.train_seconds,
            "compile_seconds": finish.compile_seconds,
            "resumed_from": resumed_from,
            "data_sha256": following.inputs.corpus.data_sha256,
            "seed": following.options.seed,
            "version": gptkit.__version__,
        }
        card = report.model_card(
            following.options, following.inputs, choices, result, command=console.command_line, sample=following.sample
        )
        with failures_told("writing the model", fix=directory.resume_line):
            report.write_model(directory.path / "model", following.inputs, card)
            draw_loss(rows, directory.path / "loss.png", title=directory.path.name)
        return directory.finish({**result, "elapsed_seconds": time.time() - psutil.Process().create_time()})

    with quiet_transformers():
        result = on_main_process(accelerator, write)
    if following.sample is not None:
        console.result(following.sample)
    _tell(result, console)
    return result


def _tell(result: dict[str, Any], console: Console) -> None:
    console.table(str(result["run_dir"]), ("figure", "value"), report.result_rows(result))
