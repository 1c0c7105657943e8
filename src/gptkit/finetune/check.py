"""Errors in the options of `gptkit finetune`, found before torch is imported."""

from __future__ import annotations

import dataclasses
import io

from gptkit.console import Console
from gptkit.errors import UsageError
from gptkit.finetune.options import NOT_WITH_FEATURES, FinetuneOptions
from gptkit.model_files import GPTShape
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import METRICS
from gptkit.tasks.reading import check_examples, require_named_files
from gptkit.tasks.table import find_task
from gptkit.tasks.task import Task
from gptkit.text.tokenizers.files import find_tokenizer
from gptkit.training.finished_runs import newest_model, read_result, unread_model
from gptkit.training.metrics import check_tracker
from gptkit.training.options import config_path, refuse_too_many_processes
from gptkit.training.run_directory import check_run


def check(options: FinetuneOptions) -> None:
    """Raise UsageError or InputError for options that contradict each other or name what is not there."""
    refuse_contradictions(options)
    check_tracker(options.report_to)
    if options.accelerate_config is not None:
        config_path(options.accelerate_config)
    if options.out is not None and read_result(options.out) is not None:
        return  # a finished run needs neither its data nor the model that it began with
    task = trainable_task(options)
    name = options.model or newest_model(Console(stderr=io.StringIO()))  # the command itself says which
    check_run(dataclasses.replace(options, model=name), command="finetune")
    model = unread_model(name)
    if model is not None:
        find_tokenizer(model)
    if model is not None and (model / "config.json").is_file():
        n_layer = read_json_object(model / "config.json").get("n_layer", GPTShape.n_layer)
        if type(n_layer) is int:
            transferred_layers(options.transfer_layers, n_layer)
    for split in ("train", "dev", *predicted_splits(task, options)):
        check_examples(task, split, options.data)


def trainable_task(options: FinetuneOptions) -> Task:
    """Return the task that --task names; UsageError if it cannot be trained as the options say."""
    task = find_task(options.task)
    if "train" not in task.splits:
        fix = "add `train: FILE` to it" if task.is_own else "fine-tune on snli instead"
        message = f"{task.name} is for evaluation only: it has no `train` in its splits"
        raise UsageError(message, where=f"--task {options.task}", fix=fix)
    refuse_unusable(task, options)
    require_named_files(task, options.data)
    return task


def refuse_contradictions(options: FinetuneOptions) -> None:
    """Refuse options that contradict each other or the run in --out."""
    _refuse_with_features(options)
    fix = f"pass --batch-size {options.processes}, or --num-processes {options.batch_size}"
    refuse_too_many_processes(options.batch_size, options.processes, where="--num-processes", fix=fix)
    for where, is_taken in (("--lm-coef 0", options.lm_coef == 0), ("--transfer-layers", options.transfer_layers)):
        if options.study != "none" and is_taken and not options.lm_epochs:
            raise UsageError(f"--study {options.study} varies this itself", where=where, fix="leave it out")
    for where, is_taken in (("lm_epochs", options.lm_epochs > 0), ("--compile on", options.compile == "on")):
        if options.study == "paper" and is_taken:
            message = f"--study {options.study} trains all its models alike, which this would not"
            raise UsageError(message, where=where, fix="leave it out, or pass --study ablation")
    several = options.seeds > 1 or options.study != "none"
    if several and options.out is not None and (options.out / METRICS).exists():
        message = "this directory holds a single-seed run; a run over several seeds needs a directory of its own"
        raise UsageError(message, where=str(options.out), fix="choose another --out")


def _refuse_with_features(options: FinetuneOptions) -> None:
    """Refuse what has no meaning where a frozen model's states are the features, and the reverse."""
    if options.features == "none":
        if options.head_learning_rate != FinetuneOptions.head_learning_rate and options.study != "paper":
            raise UsageError(
                "it is for frozen features", where="--head-learning-rate", fix="add --features last or mix"
            )
        return
    if options.dry_run:
        message = "a plan counts what training a model takes, and this one is frozen"
        raise UsageError(message, where="--dry-run", fix="leave it out: only a linear head is trained")
    for name, left_out in NOT_WITH_FEATURES.items():
        value = getattr(options, name)
        if value and value != left_out:
            asked = name if value is True else f"{name} {value}"
            message = f"{asked} does not fit a frozen model, whose linear head alone is trained"
            raise UsageError(message, where=f"--features {options.features}", fix="leave out one of the two")


def refuse_unusable(task: Task, options: FinetuneOptions) -> None:
    wanted = options.predict
    if wanted is not None and wanted not in task.splits:
        known = ", ".join(task.splits)
        raise UsageError(f"{task.name} has no split {wanted!r}", where="--predict", fix=f"choose one of {known}")


def predicted_splits(task: Task, options: FinetuneOptions) -> list[str]:
    """Return the splits to predict; for MNLI's matched split, the mismatched one as well."""
    wanted = options.predict
    if wanted is None:
        return []
    return [split for split in (wanted, f"{wanted}-mismatched") if split in task.splits]


def transferred_layers(transfer_layers: str | int | None, n_layer: int) -> int | None:
    """Return how many blocks are kept with the embeddings; None if not even the embeddings are."""
    if transfer_layers is None:
        return n_layer
    if transfer_layers == "none":
        return None
    asked = str(transfer_layers)
    if not (asked.isascii() and asked.isdigit() and int(asked) <= n_layer):
        message = f"{asked!r} is not a valid number of layers for this model"
        raise UsageError(message, where="--transfer-layers", fix=f"pass a number from 0 to {n_layer}, or none")
    return int(asked)
