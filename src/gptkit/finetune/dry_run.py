"""The plan of a fine-tuning run: the task is read, which is cheap, and the probe takes its real batches."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from accelerate import Accelerator

from gptkit.console import Console
from gptkit.finetune.inputs import Inputs
from gptkit.finetune.job import FinetuneRun
from gptkit.finetune.options import FinetuneOptions
from gptkit.finetune.study import VARIANTS
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.report.dry_run import COMPUTED, Subject, tell
from gptkit.tasks.heads import PREDICTION_TOKENS, evaluate_head, evaluation_pieces
from gptkit.training import rules
from gptkit.training.hardware import Hardware
from gptkit.training.memory import own_memory
from gptkit.training.planning import Scoring
from gptkit.training.plans import snapshots_of
from gptkit.training.probing import Probe, probe
from gptkit.training.rules import Choices

EVALUATED = 4  # batches of the probe's evaluation, from the longest examples on


def plan_finetune(
    options: FinetuneOptions,
    inputs: Inputs,
    choices: Choices,
    accelerator: Accelerator,
    hardware: Hardware,
    console: Console,
) -> dict[str, Any]:
    """Return the plan of what the same options train; with all seeds and variants; see `dry_run` for its keys."""
    library = own_memory() or 0
    tuned = inputs.model(options)
    with torch.device("meta"):
        model = GPTDoubleHeadsModel(tuned.config)
    run, train = FinetuneRun(options, inputs, tuned, hardware), inputs.train
    runs = options.seeds * (len(VARIANTS) if options.study == "ablation" else 1)
    longest = train.padded(int(train.lengths.max()))
    every = options.eval_every or run.steps_per_epoch
    subject = Subject(
        options=options,
        model=model,
        choices=choices,
        length=longest,
        rows_per_step=options.batch_size,
        rows_on=lambda where: _rows(dataclasses.replace(run, hardware=where), longest),
        micro_batches_on=lambda where: len(dataclasses.replace(run, hardware=where).micro_batching.batches(1)),
        scoring=Scoring(tokens=PREDICTION_TOKENS, has_head=False),
        library=library,
        steps=run.steps * runs,
        tokens=_tokens(options, inputs) * run.steps * runs,
        evaluations=-(-run.steps // every) * runs,
        flops_per_token=run.flops_per_token,
        has_loss_head=options.lm_coef > 0,
        has_best=True,
        has_decay=False,
        snapshots=_snapshots(options, model, run.steps, runs),
        facts=_facts(run, model, runs, longest),
        labels=dict.fromkeys(("vocabulary", "n_train", "epochs"), COMPUTED),
    )
    return tell(subject, lambda: _probe(run, choices, accelerator), accelerator, hardware, console)


def _tokens(options: FinetuneOptions, inputs: Inputs) -> float:
    """Return the tokens of a step, without padding, on average."""
    return float(inputs.train.tokens.mean()) * min(options.batch_size, len(inputs.train))


def _snapshots(options: FinetuneOptions, model: GPTDoubleHeadsModel, steps: int, runs: int) -> int:
    """Return the snapshots of all runs; of several, none are kept unless they are asked for."""
    each = snapshots_of(options, model.num_parameters()) if runs == 1 else options.snapshots or 0
    return min(steps, each) * runs


def _facts(run: FinetuneRun, model: GPTDoubleHeadsModel, runs: int, longest: int) -> dict[str, Any]:
    options, inputs, steps = run.options, run.inputs, run.steps * runs
    return {
        "task": inputs.task.name,
        "model": inputs.model_name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": model.config.vocab_size,
        "sequence_length": longest,
        "n_train": len(inputs.train),
        "runs": runs,
        "steps": steps,
        "tokens_per_step": _tokens(options, inputs),
        "tokens": _tokens(options, inputs) * steps,
        "epochs": options.epochs,
        "data_sha256": inputs.identity["data_sha256"],
    }


def _rows(run: FinetuneRun, longest: int) -> int:
    """Return how many of the longest sequences fill a forward pass: no batch has more tokens, padding included."""
    options = run.options
    share = rules.micro_batch_rows(options.batch_size, options.num_processes or 1)
    most = min(options.micro_batch or share, options.batch_size) * run.inputs.train.sequences_per_example
    return max(1, min(most, run.max_padded_tokens // longest))


def _probe(run: FinetuneRun, choices: Choices, accelerator: Accelerator) -> Probe:
    """Return what the run's own first steps cost, and an evaluation of some of the dev set."""
    dev, model = run.inputs.dev, run.model.to(accelerator.device)
    model.train()
    job = run.job(choices)
    pieces = evaluation_pieces(dev)[:EVALUATED]
    tokens = sum(int(dev.tokens[indices].sum()) for indices in pieces)
    speed = rules.EAGER_FLOPS.get((choices.device, "fp32" if choices.precision == "fp32" else "bf16"), 1e12)
    found = probe(
        model,
        job.micro_batching.batches,
        job.loss_function,
        job.optimizer,
        job.plan,
        accelerator=accelerator,
        evaluate=lambda: evaluate_head(model, dev, pieces),
        nominal_seconds=_tokens(run.options, run.inputs) * run.flops_per_token / speed,
    )
    return found.with_evaluation_of(float(dev.tokens.sum()) / tokens)
