"""`gptkit predict`: a fine-tuned model used on new texts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptkit.console import Console
from gptkit.errors import UsageError
from gptkit.model_files import model_directory
from gptkit.report.resuming import check_output, settings_hash
from gptkit.tasks.given import example_of
from gptkit.tasks.heads import Head
from gptkit.tasks.reading import unlabelled_examples
from gptkit.tasks.task import Task
from gptkit.text.examples import Example
from gptkit.text.tokenizers.any_tokenizer import unknown_note
from gptkit.training.finished_runs import newest_model, readable_model
from gptkit.use.options import PredictOptions
from gptkit.use.predictions_file import PredictionsFile, fields_of
from gptkit.use.show import Predictions

if TYPE_CHECKING:  # it needs torch, which takes seconds to import
    from gptkit.use.predictor import Predictor

AT_ONCE = 256  # examples: bounds the memory that a file takes, and what a kill loses


def run(options: PredictOptions, console: Console) -> dict[str, Any]:
    """Print the predictions, or write them to --output; return what `--json` prints.

    Whatever can be wrong with options, files and the model's directory is found before torch is imported.
    """
    _check(options)
    model = options.model or newest_model(console, command="finetune")
    directory = model_directory(readable_model(model, console))
    task = _task_of(directory, model)
    open_model = partial(_open, directory, task, options)
    if options.output is not None:
        assert options.inputs is not None  # _check
        result = _write(options.inputs, options.output, directory, task, open_model, console)
    elif options.inputs is not None:
        total = sum(1 for _ in unlabelled_examples(task, options.inputs))  # which checks all rows first
        result = _print(unlabelled_examples(task, options.inputs), total, task, open_model(), console)
    else:
        example = example_of(task, options.text, console.say)
        result = _print([example], 1, task, open_model(), console)
    return {"model": model if model.startswith("hf:") else str(directory)} | result


def _check(options: PredictOptions) -> None:
    if options.text and options.inputs is not None:
        raise UsageError("--inputs provides the examples", where="TEXT, --inputs", fix="leave one of them out")
    if options.output is not None and options.inputs is None:
        fix = "leave it out, or pass the examples: --inputs FILE"
        raise UsageError("--output is only for --inputs", where="--output", fix=fix)
    if not options.text and options.inputs is None:
        fix = "pass one, - for stdin, or a file of examples: --inputs FILE"
        raise UsageError("no text to label", where="TEXT", fix=fix)
    if options.output is not None and options.inputs is not None:
        check_output(options.output, options.inputs, "predictions", "inputs")


def _task_of(directory: Path, model: str) -> Task:
    head = Head.of(directory)
    if head.format is None:
        fix = "pass a fine-tuned one, from gptkit finetune; gptkit score takes language models"
        raise UsageError("the model is not fine-tuned: it has no labels", where=f"--model {model}", fix=fix)
    return head.own_task()


def _open(directory: Path, task: Task, options: PredictOptions) -> Predictor:
    from gptkit.use.predictor import Predictor

    return Predictor(directory, task, device=options.device, batch_size=options.batch_size)


def _print(
    examples: Iterable[Example], total: int, task: Task, predictor: Predictor, console: Console
) -> dict[str, Any]:
    """Print predictions as they are made."""
    shown, truncated = Predictions(task, console), 0
    with console.tally(total, noun="examples") if total > 1 else nullcontext() as tally:
        for results in _predicted(examples, predictor):
            for result in results:
                shown.add(result)
                truncated += result["truncated"]
            if tally is not None:
                tally.reach(tally.done + len(results))
    shown.results.finish()
    _note_losses(truncated, total, predictor, console)
    return {"truncated": truncated, "results": shown.results.kept}


def _write(
    inputs: Path, output: Path, directory: Path, task: Task, open_model: Callable[[], Predictor], console: Console
) -> dict[str, Any]:
    """Write the missing predictions to a file and print its name; a finished one is not computed again."""
    fields = (fields_of(task, example) for example in unlabelled_examples(task, inputs))
    with PredictionsFile(output, settings_hash({"command": "predict"}, directory)) as file:
        total = file.resume(fields, AT_ONCE)
        if file.done:
            console.say(f"{file.done:,} of {total:,} predictions are already done ({output})")
        if file.stale:
            console.say(f"{file.stale:,} predictions no longer match the inputs and will be redone or dropped")
        predictor = None
        if file.done < total:
            predictor = open_model()
            missing = itertools.islice(unlabelled_examples(task, inputs), file.done, None)
            with console.tally(total, file.done, noun="examples") as tally:
                for results in _predicted(missing, predictor):
                    file.append(results)
                    tally.reach(tally.done + len(results))
        _note_losses(file.truncated, total, predictor, console)
        console.result(str(output))
        return {"output": str(output), "truncated": file.truncated, "results": file.results() if console.json else []}


def _predicted(examples: Iterable[Example], predictor: Predictor) -> Iterator[list[dict[str, Any]]]:
    waiting = iter(examples)
    while chunk := list(itertools.islice(waiting, AT_ONCE)):
        yield predictor.predict(chunk)


def _note_losses(truncated: int, total: int, predictor: Predictor | None, console: Console) -> None:
    """Warn of what the model did not see."""
    if truncated:
        console.warn(f"truncated {truncated:,} of {total:,} examples to the model's positions, as in training")
    if predictor is not None and predictor.unknown:
        console.warn(unknown_note("the texts", predictor.unknown, predictor.tokens))
