"""`gptkit pretrain`: raw text in, a run directory with a model out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gptkit
from gptkit.console import Console
from gptkit.errors import AGAIN
from gptkit.model.configuration_gpt import quiet_transformers
from gptkit.model_files.files import model_presets
from gptkit.pretrain import report
from gptkit.pretrain.dry_run import plan_pretrain
from gptkit.pretrain.inputs import DEFAULT_MODEL, Inputs, prepare_inputs
from gptkit.pretrain.job import PretrainRun
from gptkit.pretrain.options import PretrainOptions
from gptkit.report.model_card import write_model, write_start
from gptkit.report.plots import draw_loss
from gptkit.system.files import new_directory, translate_os_errors
from gptkit.training import rules
from gptkit.training.finished_runs import read_result, readable_model
from gptkit.training.hardware import Hardware
from gptkit.training.memory import keep_freed_memory
from gptkit.training.metrics import check_tracker
from gptkit.training.run import Session, TrainResult, finish_run, train_run
from gptkit.training.run_directory import RunDirectory, check_run, open_run
from gptkit.training.run_identity import asks_for_more_steps


def run(options: PretrainOptions, console: Console) -> dict[str, Any]:
    """Train, validate and save as the options say; return what `--json` prints."""
    session = Session.start(options.device, console)
    if options.resume == "auto" and _is_finished(options):
        return _finished(options, session)
    keep_freed_memory()
    session.on_main(lambda: _check(options, session.hardware))
    reading = session.on_main(lambda: _with_readable_model(options, console))
    if options.dry_run:
        return plan_pretrain(reading, session)
    # The others find a full cache.
    inputs = session.main_first(lambda: prepare_inputs(reading, console.say, console.recipe_note))
    name = Path(options.model or DEFAULT_MODEL).stem
    with session.open_run(options, command="pretrain", name=name) as directory:
        console.run_directory = directory.path
        return _train(options, inputs, session, directory)


def _check(options: PretrainOptions, hardware: Hardware) -> None:
    """Refuse what can be refused before any text is read: nobody should wait for tokens to learn of a slip."""
    check_run(options, command="pretrain")
    check_tracker(options.report_to)
    rules.choose(options.precision, options.compile, hardware)


def _with_readable_model(options: PretrainOptions, console: Console) -> PretrainOptions:
    """Return the options with the newest weights of an unfinished run in place of its name."""
    if options.model is None or options.model in model_presets():
        return options
    return dataclasses.replace(options, model=readable_model(options.model, console))


def _is_finished(options: PretrainOptions) -> bool:
    """Say whether a run has all the steps that are asked for."""
    result = None if options.out is None else read_result(options.out)
    return result is not None and not asks_for_more_steps(options, result.get("steps"))


def _finished(options: PretrainOptions, session: Session) -> dict[str, Any]:
    """Return the result of a run that is over, after the check that these are its options."""

    def read() -> dict[str, Any]:
        with open_run(options, command="pretrain", name="") as directory:
            assert directory.result is not None
            return directory.result

    result = session.on_main(read)
    session.console.say(f"{result['run_dir']} already finished; showing its result")
    _print_result(result, session.console)
    return result


def _train(options: PretrainOptions, inputs: Inputs, session: Session, directory: RunDirectory) -> dict[str, Any]:
    console, model, tokenizer, text = session.console, inputs.model, inputs.tokenizer, inputs.text
    assert tokenizer is not None
    assert text is not None
    model.to(session.accelerator.device)
    run = PretrainRun(options, inputs, session.hardware, text)
    micro_batching, processes = run.micro_batching, options.num_processes or 1
    if note := rules.idle_note(len(micro_batching.batches(1)), processes, rows=inputs.rows_per_step):
        console.warn(note)
    draws_note = rules.draws_note(micro_batching.micro_batch, inputs.rows_per_step, processes)
    if draws_note and micro_batching.has_dropout and options.micro_batch is None:
        console.say(draws_note)

    def sample() -> str:
        return report.sample_text(model, tokenizer, tokens=options.sample_tokens, seed=options.seed)

    trained = train_run(
        run.job,
        options,
        run.choose(),
        directory,
        session,
        write_start=lambda folder: write_start(folder, model, tokenizer),
        sample=sample if options.sample_tokens else None,
    )
    with quiet_transformers():
        result = session.on_main(lambda: _write(options, inputs, trained, directory, console))
    if trained.sample is not None:
        console.result(trained.sample)
    _print_result(result, console)
    return result


def _write(
    options: PretrainOptions, inputs: Inputs, trained: TrainResult, directory: RunDirectory, console: Console
) -> dict[str, Any]:
    """Write model, card, curve and, last, the result, which is returned."""
    rows, finish = directory.rows(), trained.finish
    assert inputs.tokenizer is not None
    figures = ("val_loss", "val_perplexity", "bits_per_byte")
    last = directory.row_of(finish.step, figures)
    result = {
        "run_dir": str(directory.path),
        "model_dir": str(directory.path / "model"),
        "steps": finish.step,
        "tokens": finish.tokens,
        "train_loss": last["loss"],
        **{name: last[name] for name in figures},
        "tokens_per_second": finish.tokens_per_second,
        "mfu": trained.mfu,
        "train_seconds": finish.train_seconds,
        "compile_seconds": finish.compile_seconds,
        "resumed_from": trained.resumed_from,
        "data_sha256": inputs.corpus.data_sha256,
        "split_sha256": inputs.corpus.split_sha256,
        "seed": options.seed,
        "version": gptkit.__version__,
    }
    card = report.model_card(
        options, inputs, trained.choices, result, command=console.command_line, sample=trained.sample
    )
    with translate_os_errors("writing the model", fix=AGAIN):
        with new_directory(directory.path / "model") as folder:
            write_model(folder, inputs.model, inputs.tokenizer, card)
        draw_loss(rows, directory.path / "loss.png", title=directory.path.name)
    return finish_run(directory, result)


def _print_result(result: dict[str, Any], console: Console) -> None:
    console.table(str(result["run_dir"]), ("figure", "value"), report.result_rows(result))
