"""The plan of a pre-training run: its sizes from the options, and a probe on random tokens."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator

from gptkit.console import Console
from gptkit.pretrain.inputs import Inputs, flops_per_token, prepare_inputs
from gptkit.pretrain.objective import VALIDATION_TOKENS, language_modeling_loss, validate
from gptkit.pretrain.options import PretrainOptions
from gptkit.report.dry_run import ASSUMED, COMPUTED, Subject, chosen_rows, fresh_on, tell
from gptkit.training import rules
from gptkit.training.batches import Batch, MicroBatch, cut
from gptkit.training.hardware import Hardware
from gptkit.training.memory import own_memory
from gptkit.training.optimizers import build_optimizer
from gptkit.training.planning import Scoring
from gptkit.training.plans import make_plan, snapshots_of
from gptkit.training.probing import Probe, probe
from gptkit.training.rules import Choices

EVALUATED = 3 * VALIDATION_TOKENS  # tokens of the probe's evaluation: some whole forward passes


def plan_pretrain(
    options: PretrainOptions, accelerator: Accelerator, hardware: Hardware, console: Console
) -> dict[str, Any]:
    """Return the plan of what the same options train; see `dry_run` for its keys."""
    outline = prepare_inputs(options, console.say, console.recipe_note, for_plan=True)
    flops = flops_per_token(outline.model, outline.sequence_length)
    tokens = options.steps * options.tokens_per_step
    choices = rules.choose(options.precision, options.compile, hardware, total_flops=flops * tokens)
    rows, length = outline.rows_per_step, outline.sequence_length
    every = options.eval_every or max(10, options.steps // 10)
    how = ASSUMED if outline.text is None else COMPUTED

    def rows_on(where: Hardware) -> int:
        return min(rows, chosen_rows(options, outline.model, where, rows=rows, length=length))

    subject = Subject(
        options=options,
        model=outline.model,
        choices=choices,
        length=length,
        rows_per_step=rows,
        rows_on=rows_on,
        micro_batches_on=lambda where: -(-rows // rows_on(where)),
        scoring=Scoring(tokens=min(VALIDATION_TOKENS, outline.validation_tokens), has_head=True),
        library=own_memory() or 0,
        steps=options.steps,
        tokens=tokens,
        evaluations=-(-options.steps // every),
        flops_per_token=flops,
        has_loss_head=True,
        has_best=False,
        has_decay=options.schedule == "wsd",
        snapshots=min(options.steps, snapshots_of(options, outline.model.num_parameters())),
        facts=_facts(options, outline),
        labels=dict.fromkeys(("vocabulary", "train_tokens", "validation_tokens", "epochs"), how),
    )
    return tell(
        subject, lambda: _probe(options, outline, subject, accelerator, hardware), accelerator, hardware, console
    )


def _facts(options: PretrainOptions, outline: Inputs) -> dict[str, Any]:
    tokens = options.steps * options.tokens_per_step
    return {
        "parameters": sum(parameter.numel() for parameter in outline.model.parameters()),
        "vocabulary": outline.vocabulary,
        "sequence_length": outline.sequence_length,
        "steps": options.steps,
        "tokens_per_step": options.tokens_per_step,
        "tokens": tokens,
        "train_tokens": outline.train_tokens,
        "validation_tokens": outline.validation_tokens,
        "epochs": tokens / max(1, outline.train_tokens),
        "data_sha256": outline.corpus.data_sha256,
    }


def _probe(
    options: PretrainOptions, outline: Inputs, subject: Subject, accelerator: Accelerator, hardware: Hardware
) -> Probe:
    """Return what real steps on random tokens cost: time and memory do not depend on which tokens they are."""
    model = fresh_on(outline.model, accelerator.device)
    if options.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if subject.choices.compile:
        model.compile_blocks()
    length, rows, most = outline.sequence_length, outline.rows_per_step, subject.rows_on(hardware)

    def load(rows: int) -> Batch:
        tokens = torch.randint(outline.vocabulary, (rows, length + 1), generator=torch.Generator().manual_seed(rows))
        return {"input_ids": tokens[:, :-1].contiguous(), "shift_labels": tokens[:, 1:].contiguous()}

    micro_batches = [MicroBatch(row, n * length, lambda n=n: load(n)) for row, n in cut(0, rows, most)]  # type: ignore[misc]
    evaluated = min(outline.validation_tokens, EVALUATED)
    held_out = torch.randint(outline.vocabulary, (evaluated,)).numpy()
    found = probe(
        model,
        lambda step: micro_batches,
        language_modeling_loss,
        build_optimizer(model.named_parameters(), options, precision=subject.choices.precision),
        _probe_plan(options, subject.choices),
        accelerator=accelerator,
        evaluate=lambda: validate(model, held_out, sequence_length=length, utf8_bytes=1),
        nominal_seconds=_nominal_seconds(subject, options.tokens_per_step),
    )
    return found.with_evaluation_of(outline.validation_tokens / evaluated)


def _probe_plan(options: PretrainOptions, choices: Choices) -> Any:
    return make_plan(options, choices, steps=options.steps, eval_every=1, parameters=0, identity={})


def _nominal_seconds(subject: Subject, tokens: int) -> float:
    speed = rules.EAGER_FLOPS.get(
        (subject.choices.device, "fp32" if subject.choices.precision == "fp32" else "bf16"), 1e12
    )
    return tokens * subject.flops_per_token / speed
