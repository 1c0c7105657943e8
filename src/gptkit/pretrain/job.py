"""A pre-training run: batches, loss and validation for the training loop, and its plan for `--dry-run`.

Each token of a block is predicted from those before it (GPT-1 paper, equation 1), or the masked ones from all others.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gptkit.model.configuration_gpt import mask_token_of
from gptkit.model.modeling_gpt import compile_blocks
from gptkit.pretrain.inputs import Inputs, prepare_inputs
from gptkit.pretrain.masked import masked_batches, validate_masked
from gptkit.pretrain.options import PretrainOptions
from gptkit.pretrain.validation import language_modeling_loss, total_nll
from gptkit.report.dry_run import PlannedRun, show_plan
from gptkit.report.memory_plan import Workload
from gptkit.text.blocks import PreparedText, TokenIds, TokenStream, TrainingBlocks, validation_windows
from gptkit.text.tokenizers.loading import fingerprint
from gptkit.training import rules
from gptkit.training.batches import Batch, Batches, MicroBatch, ShouldStop, cut
from gptkit.training.job import MicroBatching, TrainingJob, make_plan, make_schedule
from gptkit.training.memory import own_memory
from gptkit.training.optimizers import build_optimizer
from gptkit.training.rules import Choices, Hardware
from gptkit.training.run import Session
from gptkit.training.schedules import steps_before_decay

VALIDATION_TOKENS = 4096  # per forward pass
BYTES_PER_TOKEN = 4  # of English in byte-level BPE with 50,257 entries, approximately
PROBED_TOKENS = 3 * VALIDATION_TOKENS  # of a dry run's evaluation: a few whole forward passes


@dataclass(frozen=True)
class PretrainRun:
    """A run of these options on this hardware; a dry run's text is random tokens."""

    options: PretrainOptions
    inputs: Inputs
    hardware: Hardware
    text: PreparedText

    def choose(self) -> Choices:
        """Return the run's precision, and whether it is compiled."""
        options, inputs = self.options, self.inputs
        total = rules.flops_per_token(inputs.model, inputs.sequence_length) * options.tokens_per_step * options.steps
        compile = rules.choose_compile_for(options.compile, inputs.model)
        return rules.choose(options.precision, compile, self.hardware, total_flops=total)

    @property
    def micro_batching(self) -> MicroBatching:
        """How batches are split into micro-batches, unless memory runs out."""
        inputs, length, rows_per_step = self.inputs, self.inputs.sequence_length, self.inputs.rows_per_step
        micro_batch = self.options.micro_batch or rules.choose_micro_batch(
            self.hardware,
            inputs.model,
            rows=rules.micro_batch_rows(rows_per_step, self.options.processes),
            sequence_length=length,
        )
        blocks = TrainingBlocks(self.text.train.ids, length, self.options.seed)

        make, _ = self.objective

        def batches_of(rows: int) -> Batches:
            return make(blocks, sequence_length=length, rows_per_step=rows_per_step, micro_batch=rows)

        return MicroBatching(
            micro_batch=min(micro_batch, rows_per_step),
            batches_of=batches_of,
            largest=lambda rows: batches_of(rows)(1)[:1],
            has_dropout=inputs.model.has_dropout,
        )

    @property
    def objective(self) -> tuple[Callable[..., Batches], Callable[..., dict[str, float]]]:
        """What the model learns to predict: the batches of a step, and the metrics of a validation."""
        text, length = self.text.validation, self.inputs.sequence_length
        if (mask := mask_token_of(self.inputs.model.config)) is not None:
            rows = max(1, VALIDATION_TOKENS // length)
            make = partial(masked_batches, mask_token=mask, seed=self.options.seed)
            return make, partial(validate_masked, sequence_length=length, mask_token=mask, rows=rows)
        utf8_bytes = None if text.unknown else text.utf8_bytes
        return pretraining_batches, partial(validate, sequence_length=length, utf8_bytes=utf8_bytes)

    def job(self, choices: Choices) -> TrainingJob:
        """Return the job for the training loop; by default it is validated and saved ten times."""
        options, inputs, model = self.options, self.inputs, self.inputs.model
        _, evaluate = self.objective
        return TrainingJob(
            model=model,
            micro_batching=self.micro_batching.at_most(choices.micro_batch),
            loss_function=language_modeling_loss,
            optimizer=build_optimizer(model.named_parameters(), options, precision=choices.precision),
            schedule=make_schedule(options, steps=options.steps, warmup_steps=options.warmup_steps),
            plan=make_plan(
                options,
                choices,
                steps=options.steps,
                eval_every=max(10, options.steps // 10),
                parameters=model.num_parameters(),
                decay_start=steps_before_decay(options.schedule, options.steps, options.decay_steps) or None,
                identity={
                    "data_sha256": inputs.corpus.data_sha256,
                    "split_sha256": inputs.corpus.split_sha256,
                    "tokenizer_sha256": fingerprint(inputs.tokenizer) if inputs.tokenizer is not None else "",
                },
            ),
            compile_blocks=compile_blocks,
            evaluate=lambda stop: evaluate(model, self.text.validation.ids, should_stop=stop),
            flops_per_token=rules.flops_per_token(model, inputs.sequence_length),
        )


def plan_pretrain(options: PretrainOptions, session: Session) -> dict[str, Any]:
    """Show and return the plan of these options; see `report.dry_run` for its keys."""
    inputs = prepare_inputs(options, session.console, for_plan=True)
    if inputs.text is not None:
        train_tokens, validation_tokens = len(inputs.text.train), len(inputs.text.validation)
    else:
        sides = inputs.corpus.train, inputs.corpus.validation
        train_tokens, validation_tokens = (side.count_bytes() // BYTES_PER_TOKEN for side in sides)
    # Time and memory do not depend on the text: random tokens, enough for a step and part of a validation.
    length, probed_tokens = inputs.sequence_length, min(validation_tokens, PROBED_TOKENS)
    size = options.tokens_per_step + length + probed_tokens
    ids = np.random.default_rng(options.seed).integers(inputs.vocabulary, size=size, dtype=np.uint32)
    train, validation = (TokenStream(side, Path(), utf8_bytes=1) for side in (ids[probed_tokens:], ids[:probed_tokens]))
    run = PretrainRun(options, inputs, session.hardware, PreparedText(train, validation))
    choices = run.choose()

    def passes_on(hardware: Hardware) -> tuple[int, int]:
        micro_batching = dataclasses.replace(run, hardware=hardware).micro_batching
        return micro_batching.micro_batch, len(micro_batching.batches(1))

    def probed_job() -> tuple[TrainingJob, float]:
        model = type(inputs.model)(inputs.model.config)
        if options.gradient_checkpointing:
            model.activation_checkpointing_enable()
        model.to(session.accelerator.device)
        probed = dataclasses.replace(run, inputs=dataclasses.replace(inputs, model=model))
        return probed.job(choices), validation_tokens / probed_tokens

    planned = PlannedRun(
        options=options,
        job=run.job(choices),
        work=Workload(
            length=length,
            checkpointing=options.gradient_checkpointing,
            evaluation_tokens=min(VALIDATION_TOKENS, validation_tokens),
        ),
        passes_on=passes_on,
        rows_per_step=inputs.rows_per_step,
        tokens_per_step=options.tokens_per_step,
        baseline=own_memory() or 0,
        facts={
            "vocabulary": inputs.vocabulary,
            "train_tokens": train_tokens,
            "validation_tokens": validation_tokens,
            "epochs": options.steps * options.tokens_per_step / max(1, train_tokens),
            "data_sha256": inputs.corpus.data_sha256,
        },
        data_is_read=inputs.text is not None,
        probed_job=probed_job,
    )
    return show_plan(planned, session)


def pretraining_batches(
    blocks: TrainingBlocks, *, sequence_length: int, rows_per_step: int, micro_batch: int
) -> Batches:
    """Return the function from a step to its global batch, cut into micro-batches."""

    def batches(step: int) -> list[MicroBatch]:
        first_row = (step - 1) * rows_per_step
        return [
            MicroBatch(row, rows * sequence_length, partial(_block_batch, blocks, row, rows))
            for row, rows in cut(first_row, rows_per_step, micro_batch)
        ]

    return batches


def _block_batch(blocks: TrainingBlocks, first_row: int, rows: int) -> Batch:
    return _inputs_and_targets(torch.from_numpy(blocks.rows(first_row, rows)))


def _inputs_and_targets(tokens: Tensor) -> Batch:
    """Split windows (row, length + 1) into inputs and targets, each (row, length)."""
    return {"input_ids": tokens[:, :-1].contiguous(), "shift_labels": tokens[:, 1:].contiguous()}


def validate(
    model: nn.Module,
    tokens: TokenIds,
    *,
    sequence_length: int,
    utf8_bytes: int | None,
    should_stop: ShouldStop = lambda: False,
) -> dict[str, float]:
    """Score every token but the first exactly once, in disjoint windows, and return the validation metrics.

    val_loss is in nats per token, val_perplexity is its exponential, and bits_per_byte is the total negative
    log-likelihood / ln 2 / UTF-8 bytes of the text; it is NaN with `utf8_bytes` None, for a text with unknown tokens:
    predicting those does not predict what they stand for.
    """
    nll, count = total_nll(model, _validation_batches(tokens, sequence_length), should_stop)
    loss = nll / count
    return {
        "val_loss": loss,
        "val_perplexity": math.exp(loss) if loss < 700 else math.inf,  # a float would overflow
        "bits_per_byte": math.nan if utf8_bytes is None else nll / math.log(2) / utf8_bytes,
    }


def _validation_batches(tokens: TokenIds, sequence_length: int) -> Iterator[Batch]:
    """Yield batches of windows of one length; a shorter last window is a batch of its own."""
    whole = (len(tokens) - 1) // sequence_length
    windows = validation_windows(tokens, sequence_length)
    rows = max(1, VALIDATION_TOKENS // sequence_length)
    for first in range(0, whole, rows):
        yield _inputs_and_targets(torch.from_numpy(np.stack(list(islice(windows, min(rows, whole - first))))))
    for last in windows:
        yield _inputs_and_targets(torch.from_numpy(last)[None])
