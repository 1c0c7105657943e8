"""`gptkit pretrain`: train a language model on raw text, from scratch or from a model directory."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gptkit
from gptkit.console import Console
from gptkit.decoding.sampling import SamplingRules
from gptkit.decoding.text import never_sampled, stop_ids
from gptkit.decoding.torch_engine import generate
from gptkit.errors import AGAIN
from gptkit.model.configuration_gpt import quiet_transformers
from gptkit.model_files import model_presets
from gptkit.pretrain.check import DEFAULT_MODEL, DEFAULT_TOKENIZER
from gptkit.pretrain.inputs import Inputs, prepare_inputs
from gptkit.pretrain.job import PretrainRun, plan_pretrain
from gptkit.pretrain.options import PretrainOptions
from gptkit.report.model_card import model_card, model_facts, write_model, write_start
from gptkit.report.plots import draw_loss
from gptkit.report.text import figure
from gptkit.system.files import new_directory, translate_os_errors
from gptkit.system.run_layout import OVERFITTED, best_weights, step_of, validation_loss
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.training import rules
from gptkit.training.finished_runs import read_result, readable_model
from gptkit.training.memory import keep_freed_memory
from gptkit.training.run import Session, TrainResult, train_run
from gptkit.training.run_directory import RunDirectory
from gptkit.training.run_identity import asks_for_more_steps

SAMPLE_TOP_K = 40
FIGURES = {
    "val_loss": "validation loss (nats per token)",
    "val_perplexity": "validation perplexity (per token)",
    "bits_per_byte": "validation bits per byte",
    "masked_loss": "validation loss of masked tokens (nats per token)",
    "train_loss": "training loss, last step",
    "steps": "steps",
    "tokens": "tokens",
    "tokens_per_second": "tokens per second",
    "mfu": "model FLOPs utilization",
    "train_seconds": "seconds of training (whole run)",
    "elapsed_seconds": "total seconds (this command)",
}


def run(options: PretrainOptions, console: Console) -> dict[str, Any]:
    """Train as the options say and return what `--json` prints."""
    session = Session.start(options.device, console)
    finished = read_result(options.out) if options.out is not None else None
    if finished is not None and not asks_for_more_steps(options, finished.get("steps")):
        with session.open_run(options, command="pretrain", name=""):  # raises if it has other options
            console.say(f"{finished['run_dir']} already finished; showing its result")
        _print_result(finished, console)
        return finished
    keep_freed_memory()
    session.check(options, command="pretrain")  # before any text is tokenized
    reading, model = options, options.model
    if model is not None and model not in model_presets():
        reading = dataclasses.replace(options, model=session.on_main(lambda: readable_model(model, console)))
    if options.dry_run:
        return plan_pretrain(reading, session)
    # The other processes then find the tokens in the cache.
    inputs = session.main_first(lambda: prepare_inputs(reading, console))
    with session.open_run(options, command="pretrain", name=Path(model or DEFAULT_MODEL).stem) as directory:
        console.run_directory = console.run_directory or directory.path  # fine-tuning's, which resumes this one
        return _train(options, inputs, session, directory)


def _train(options: PretrainOptions, inputs: Inputs, session: Session, directory: RunDirectory) -> dict[str, Any]:
    console, model, tokenizer, text = session.console, inputs.model, inputs.tokenizer, inputs.text
    assert tokenizer is not None
    assert text is not None
    model.to(session.accelerator.device)
    run = PretrainRun(options, inputs, session.hardware, text)
    micro_batching = run.micro_batching
    if note := rules.idle_note(len(micro_batching.batches(1)), options.processes, rows=inputs.rows_per_step):
        console.warn(note)
    draws_note = rules.draws_note(micro_batching.micro_batch, inputs.rows_per_step, options.processes)
    if draws_note and micro_batching.has_dropout and options.micro_batch is None:
        console.say(draws_note)

    tokens = options.steps * inputs.rows_per_step * inputs.sequence_length
    console.say(f"{options.steps:,} steps, {tokens:,} tokens: {tokens / len(text.train):.3g} times the training text")

    def sample() -> str:
        """Return unconditional text, sampled with the same random numbers every time."""
        (drawn,) = generate(
            model,
            [[separator_id(tokenizer)]],
            max_new_tokens=min(options.sample_tokens, model.config.n_positions - 1),
            rules=SamplingRules(top_k=SAMPLE_TOP_K),
            seed=options.seed,
            stop_ids=stop_ids(tokenizer),
            forbidden_ids=never_sampled(tokenizer, model.config.vocab_size),
        )
        return str(tokenizer.decode(drawn.token_ids))

    trained = train_run(
        run.job,
        options,
        run.choose(),
        directory,
        session,
        write_start=lambda folder: write_start(folder, model, tokenizer),
        sample=sample if options.sample_tokens and options.objective == "causal" else None,
        before="random tokens, before training" if inputs.from_scratch else "sample before training",
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
    """Write the model with its card, the loss curve and, last, the result, which is returned."""
    rows, finish, text = directory.rows(), trained.finish, inputs.text
    assert inputs.tokenizer is not None
    assert text is not None
    is_masked = options.objective == "masked"
    figures = ("val_loss", "val_perplexity", "bits_per_byte", *(("masked_loss",) * is_masked))
    last = directory.row_of(finish.step, figures[-1:])
    best = min((row for row in rows if validation_loss(row) is not None), key=validation_loss)
    result = {
        "run_dir": str(directory.path),
        "model_dir": str(directory.path / "model"),
        "steps": finish.step,
        "tokens": finish.tokens,
        "train_loss": last["loss"],
        **{name: last.get(name) for name in figures},
        "best": {name: best.get(name) for name in ("step", *figures)},
        "tokens_per_second": finish.tokens_per_second,
        "mfu": trained.mfu,
        "train_seconds": finish.train_seconds,
        "compile_seconds": finish.compile_seconds,
        "resumed_from": trained.resumed_from,
        "data_sha256": inputs.corpus.data_sha256,
        "split_sha256": inputs.corpus.split_sha256,
        "unknown_tokens": {"train": text.train.unknown, "validation": text.validation.unknown},
        "seed": options.seed,
        "version": gptkit.__version__,
    }
    card = _card(options, inputs, trained, result, command=console.command_line)
    if note := _overfitting(result):
        console.warn(note)
    with translate_os_errors("writing the model", fix=AGAIN):
        with new_directory(directory.path / "model") as folder:
            write_model(folder, inputs.model, inputs.tokenizer, card)
        names = {"evaluated": "masked_loss", "ylabel": "loss (nats per masked token)"} if is_masked else {}
        draw_loss(rows, directory.path / "loss.png", title=directory.path.name, **names)
    return directory.finish(result)


def _overfitting(result: Mapping[str, Any]) -> str | None:
    """Return what to do about a validation loss that rises by more than 1% after its lowest point."""
    lowest, step, last = validation_loss(result["best"]), result["best"]["step"], validation_loss(result)
    if last <= OVERFITTED * lowest:
        return None
    risen = f"the validation loss was lowest at step {step:,}, {lowest:.4g}, and rose to {last:.4g}"
    path = best_weights(result)
    command = "gptkit generate " if result.get("masked_loss") is None else ""
    use = path and f"; the weights of step {step_of(path):,} are kept: {command}--model {shlex.quote(str(path))}"
    cure = f"to train a better model, use more text, fewer steps (--steps {step}), or --dropout 0.1, and a new --out"
    return f"overfitting: {risen}: the model is memorizing its training text{use or ''}; {cure}"


def _print_result(result: dict[str, Any], console: Console) -> None:
    console.table(str(result["run_dir"]), ("figure", "value"), list(_figures(result).items()))


def _figures(result: Mapping[str, Any]) -> dict[str, str]:
    """Return a result's figures formatted for people, by name and unit."""
    found = {}
    for key, name in FIGURES.items():
        if (value := result.get(key)) is not None:
            found[name] = figure(value)
        elif key != "bits_per_byte" or "masked_loss" in result:
            continue
        elif unknown := result.get("unknown_tokens", {}).get("validation"):
            found[name] = f"n/a: {unknown:,} tokens are unknown to the tokenizer"
    return found


def _card(
    options: PretrainOptions, inputs: Inputs, trained: TrainResult, result: Mapping[str, Any], *, command: str
) -> str:
    """Return the card of a finished run."""
    text, is_masked, best = inputs.text, options.objective == "masked", result["best"]
    assert text is not None
    use_with = "gptkit finetune --task demo-classification" if is_masked else "gptkit generate --top-k 40"
    use = f"{use_with} --model ."
    if kept := best_weights(result):
        better = f"{use_with} --model ../{kept.parent.name}/{kept.name}"
        use = f"{better}  # near the lowest loss\n{use}  # last step"
    lowest = {"lowest validation loss": f"{validation_loss(best):.4g} at step {best['step']:,}"}
    origin = "from scratch" if inputs.from_scratch else f"from the weights of {options.model}"
    model, kind = f"{inputs.model.config.family} language model", dict[str, Any]()
    if is_masked:
        kind = {"writes": False, "limits": "It predicts masked tokens from both sides, and writes no text."}
    return model_card(
        name=Path(str(result["run_dir"])).name,
        summary=f"{model}, pre-trained {origin} with gptkit {gptkit.__version__}.",
        **model_facts(inputs.model, trained.choices),
        data=f"{inputs.corpus.description}: {text.train.utf8_bytes:,} training bytes, "
        f"{text.validation.utf8_bytes:,} validation bytes",
        data_sha256=inputs.corpus.data_sha256,
        licence=inputs.corpus.licence,
        tokenizer=f"{options.tokenizer or DEFAULT_TOKENIZER}, {inputs.vocabulary:,} entries",
        command=command,
        measured=_figures(result) | lowest,
        sample=trained.sample,
        use=use,
        **kind,
    )
