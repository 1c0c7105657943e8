"""The plan of a fine-tuning run: the task is read, which is cheap, and the probe takes its real batches."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator

from gptkit.console import Console
from gptkit.finetune import plan
from gptkit.finetune.inputs import Inputs
from gptkit.finetune.objective import double_heads_loss
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
    length, train = plan.length_of(options, inputs), inputs.train
    runs = options.seeds * (len(VARIANTS) if options.study == "ablation" else 1)
    longest = train.padded(int(train.lengths.max()))
    every = options.eval_every or length.steps_per_epoch
    subject = Subject(
        options=options,
        model=model,
        choices=choices,
        length=longest,
        rows_per_step=options.batch_size,
        rows_on=lambda where: _rows(options, inputs, tuned, where, longest),
        micro_batches_on=lambda where: len(plan.cutting(options, inputs, tuned, where).batches(1)),
        scoring=Scoring(tokens=PREDICTION_TOKENS, has_head=False),
        library=library,
        steps=length.steps * runs,
        tokens=_tokens(options, inputs) * length.steps * runs,
        evaluations=-(-length.steps // every) * runs,
        flops_per_token=plan.flops_per_token(options, inputs, tuned),
        has_loss_head=options.lm_coef > 0,
        has_best=True,
        has_decay=False,
        snapshots=_snapshots(options, model, length.steps, runs),
        facts=_facts(options, inputs, model, runs, longest),
        labels=dict.fromkeys(("vocabulary", "n_train", "epochs"), COMPUTED),
    )
    return tell(
        subject, lambda: _probe(options, inputs, tuned, choices, accelerator, hardware), accelerator, hardware, console
    )


def _tokens(options: FinetuneOptions, inputs: Inputs) -> float:
    """Return the tokens of a step, without padding, on average."""
    return float(inputs.train.tokens.mean()) * min(options.batch_size, len(inputs.train))


def _snapshots(options: FinetuneOptions, model: GPTDoubleHeadsModel, steps: int, runs: int) -> int:
    """Return the snapshots of all runs; of several, none are kept unless they are asked for."""
    each = snapshots_of(options, model.num_parameters()) if runs == 1 else options.snapshots or 0
    return min(steps, each) * runs


def _facts(
    options: FinetuneOptions, inputs: Inputs, model: GPTDoubleHeadsModel, runs: int, longest: int
) -> dict[str, Any]:
    steps = plan.length_of(options, inputs).steps * runs
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


def _rows(
    options: FinetuneOptions, inputs: Inputs, model: GPTDoubleHeadsModel, hardware: Hardware, longest: int
) -> int:
    """Return how many of the longest sequences fill a forward pass: no batch has more tokens, padding included."""
    share = rules.micro_batch_rows(options.batch_size, options.num_processes or 1)
    most = min(options.micro_batch or share, options.batch_size) * inputs.train.sequences_per_example
    return max(1, min(most, plan.padded_tokens(options, inputs, model, hardware) // longest))


def _probe(
    options: FinetuneOptions,
    inputs: Inputs,
    model: GPTDoubleHeadsModel,
    choices: Choices,
    accelerator: Accelerator,
    hardware: Hardware,
) -> Probe:
    """Return what the run's own first steps cost, and an evaluation of some of the dev set."""
    model = model.to(accelerator.device)
    model.train()
    if choices.compile:
        model.compile_blocks(dynamic=True)
    pieces = evaluation_pieces(inputs.dev)[:EVALUATED]
    tokens = sum(int(inputs.dev.tokens[indices].sum()) for indices in pieces)
    speed = rules.EAGER_FLOPS.get((choices.device, "fp32" if choices.precision == "fp32" else "bf16"), 1e12)
    found = probe(
        model,
        plan.cutting(options, inputs, model, hardware).batches,
        double_heads_loss(options.lm_coef),
        plan.optimizer(options, inputs, model, choices.precision),
        plan.plan(options, inputs, model, choices),
        accelerator=accelerator,
        evaluate=lambda: evaluate_head(model, inputs.dev, pieces),
        nominal_seconds=_tokens(options, inputs) * plan.flops_per_token(options, inputs, model) / speed,
    )
    return found.with_evaluation_of(float(inputs.dev.tokens.sum()) / tokens)
