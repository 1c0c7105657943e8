"""The plan of a fine-tuning run: the task is read, which is cheap, and the probe takes its real batches."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from gptkit.finetune.inputs import Inputs
from gptkit.finetune.job import FinetuneRun
from gptkit.finetune.options import FinetuneOptions
from gptkit.finetune.study import VARIANTS
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.report.dry_run import COMPUTED, PlannedRun, show_plan
from gptkit.report.memory_plan import Workload
from gptkit.tasks.heads import PREDICTION_TOKENS, evaluate_head, evaluation_pieces
from gptkit.training.batches import ShouldStop
from gptkit.training.job import TrainingJob
from gptkit.training.memory import own_memory
from gptkit.training.rules import Choices, Hardware
from gptkit.training.run import Session

EVALUATED = 4  # batches of the probe's evaluation, from the longest examples on


def plan_finetune(options: FinetuneOptions, inputs: Inputs, choices: Choices, session: Session) -> dict[str, Any]:
    """Return the plan of what the same options train, with all seeds and variants; see `report.dry_run` for keys."""
    baseline = own_memory() or 0
    runs = options.seeds * (len(VARIANTS) if options.study == "ablation" else 1)
    if runs > 1:
        options = dataclasses.replace(options, snapshots=options.snapshots or 0)  # as the runs of several seeds have
    tuned, train, dev = inputs.model(options), inputs.train, inputs.dev
    with torch.device("meta"):
        model = GPTDoubleHeadsModel(tuned.config)
    run = FinetuneRun(options, inputs, model, session.hardware)
    longest, steps = train.padded(int(train.lengths.max())), run.steps * runs
    tokens = float(train.tokens.mean()) * min(options.batch_size, len(train))  # of a step, without padding, on average

    def passes_on(hardware: Hardware) -> tuple[int, int]:
        """Return how many of the longest sequences fill a pass: no batch has more tokens, padding included."""
        there = dataclasses.replace(run, hardware=hardware)
        most = there.micro_batching.micro_batch * train.sequences_per_example
        rows = max(1, min(most, there.max_padded_tokens // longest))
        return rows, len(there.micro_batching.batches(1))

    def probed_job() -> tuple[TrainingJob, float]:
        pieces = evaluation_pieces(dev)[:EVALUATED]

        def evaluate(should_stop: ShouldStop) -> dict[str, float]:
            evaluate_head(tuned, dev, pieces, should_stop=should_stop)
            return {}

        job = dataclasses.replace(run, model=tuned.to(session.accelerator.device)).job(choices)
        evaluated = sum(int(dev.tokens[indices].sum()) for indices in pieces)
        return dataclasses.replace(job, evaluate=evaluate), float(dev.tokens.sum()) / evaluated

    planned = PlannedRun(
        options=options,
        job=run.job(choices),
        work=Workload(
            length=longest,
            checkpointing=options.gradient_checkpointing,
            trains_head=options.lm_coef > 0,
            evaluation_tokens=PREDICTION_TOKENS,
            evaluates_head=False,
        ),
        passes_on=passes_on,
        rows_per_step=options.batch_size,
        baseline=baseline,
        runs=runs,
        facts={
            "task": inputs.task.name,
            "model": inputs.model_name,
            "parameters": model.num_parameters(),
            "vocabulary": model.config.vocab_size,
            "sequence_length": longest,
            "n_train": len(train),
            "runs": runs,
            "steps": steps,
            "tokens_per_step": tokens,
            "tokens": tokens * steps,
            "epochs": options.epochs,
            "data_sha256": inputs.identity["data_sha256"],
        },
        labels=dict.fromkeys(("vocabulary", "n_train", "epochs"), COMPUTED),
        probed_job=probed_job,
    )
    return show_plan(planned, session)
