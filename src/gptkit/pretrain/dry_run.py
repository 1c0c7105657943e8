"""The plan of a pre-training run: its sizes from the options, and a probe on random tokens."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from gptkit.pretrain.inputs import prepare_inputs
from gptkit.pretrain.job import VALIDATION_TOKENS, PretrainRun
from gptkit.pretrain.options import PretrainOptions
from gptkit.report.dry_run import ASSUMED, COMPUTED, PlannedRun, show_plan
from gptkit.report.memory_plan import Workload
from gptkit.text.blocks import PreparedText, TokenStream
from gptkit.training.job import TrainingJob
from gptkit.training.memory import own_memory
from gptkit.training.rules import Hardware
from gptkit.training.run import Session

EVALUATED = 3 * VALIDATION_TOKENS  # tokens of the probe's evaluation: some whole forward passes


def plan_pretrain(options: PretrainOptions, session: Session) -> dict[str, Any]:
    """Return the plan of what the same options train; see `report.dry_run` for its keys."""
    inputs = prepare_inputs(options, session.console.say, session.console.recipe_note, for_plan=True)
    # Time and memory do not depend on which tokens they are: these are enough for a step and for some of an evaluation.
    length, evaluated = inputs.sequence_length, min(inputs.validation_tokens, EVALUATED)
    size = options.tokens_per_step + length + evaluated
    ids = np.random.default_rng(options.seed).integers(inputs.vocabulary, size=size, dtype=np.uint32)
    train, validation = (TokenStream(side, Path(), utf8_bytes=1) for side in (ids[evaluated:], ids[:evaluated]))
    run = PretrainRun(options, inputs, session.hardware, PreparedText(train, validation))
    choices, tokens = run.choose(), options.steps * options.tokens_per_step

    def passes_on(hardware: Hardware) -> tuple[int, int]:
        micro_batching = dataclasses.replace(run, hardware=hardware).micro_batching
        return micro_batching.micro_batch, len(micro_batching.batches(1))

    def probed_job() -> tuple[TrainingJob, float]:
        model = type(inputs.model)(inputs.model.config)
        if options.gradient_checkpointing:
            model.activation_checkpointing_enable()
        model.to(session.accelerator.device)
        probed = dataclasses.replace(run, inputs=dataclasses.replace(inputs, model=model))
        return probed.job(choices), inputs.validation_tokens / evaluated

    planned = PlannedRun(
        options=options,
        job=run.job(choices),
        work=Workload(
            length=length,
            checkpointing=options.gradient_checkpointing,
            evaluation_tokens=min(VALIDATION_TOKENS, inputs.validation_tokens),
        ),
        passes_on=passes_on,
        rows_per_step=inputs.rows_per_step,
        baseline=own_memory() or 0,
        facts={
            "parameters": inputs.model.num_parameters(),
            "vocabulary": inputs.vocabulary,
            "sequence_length": length,
            "steps": options.steps,
            "tokens_per_step": options.tokens_per_step,
            "tokens": tokens,
            "train_tokens": inputs.train_tokens,
            "validation_tokens": inputs.validation_tokens,
            "epochs": tokens / max(1, inputs.train_tokens),
            "data_sha256": inputs.corpus.data_sha256,
        },
        labels=dict.fromkeys(
            ("vocabulary", "train_tokens", "validation_tokens", "epochs"), ASSUMED if inputs.text is None else COMPUTED
        ),
        probed_job=probed_job,
    )
    return show_plan(planned, session)
