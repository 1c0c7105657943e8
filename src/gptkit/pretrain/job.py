"""One pre-training run as the training loop takes it: blocks, schedule, loss and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from gptkit.pretrain.inputs import Inputs, flops_per_token
from gptkit.pretrain.objective import language_modeling_loss, pretraining_batches, validate
from gptkit.pretrain.options import PretrainOptions
from gptkit.text.blocks import PreparedText, TrainingBlocks
from gptkit.text.tokenizers.loading import fingerprint
from gptkit.training import rules
from gptkit.training.batches import Batches
from gptkit.training.hardware import Hardware
from gptkit.training.job import MicroBatching, TrainingJob, make_plan, make_schedule
from gptkit.training.optimizers import build_optimizer
from gptkit.training.rules import Choices
from gptkit.training.schedules import steps_before_decay


@dataclass(frozen=True)
class PretrainRun:
    """A run of these options on this hardware; a plan has a text of random tokens."""

    options: PretrainOptions
    inputs: Inputs
    hardware: Hardware
    text: PreparedText

    def choose(self) -> Choices:
        """Return the run's arithmetic."""
        options, inputs = self.options, self.inputs
        total = flops_per_token(inputs.model, inputs.sequence_length) * options.tokens_per_step * options.steps
        return rules.choose(options.precision, options.compile, self.hardware, total_flops=total)

    @property
    def micro_batching(self) -> MicroBatching:
        """How the batches are split, unless memory runs out."""
        inputs, config = self.inputs, self.inputs.model.config
        length, rows_per_step = inputs.sequence_length, inputs.rows_per_step
        micro_batch = self.options.micro_batch or rules.choose_micro_batch(
            self.hardware,
            rows=rules.micro_batch_rows(rows_per_step, self.options.num_processes or 1),
            sequence_length=length,
            parameters=inputs.model.num_parameters(),
            n_layer=config.n_layer,
            n_embd=config.n_embd,
        )
        blocks = TrainingBlocks(self.text.train.ids, length, self.options.seed)

        def batches_of(rows: int) -> Batches:
            return pretraining_batches(blocks, sequence_length=length, rows_per_step=rows_per_step, micro_batch=rows)

        return MicroBatching(
            micro_batch=min(micro_batch, rows_per_step),
            batches_of=batches_of,
            largest=lambda rows: batches_of(rows)(1)[:1],
            has_dropout=inputs.model.has_dropout,
        )

    def job(self, choices: Choices) -> TrainingJob:
        """Return what the loop trains; by default it evaluates and saves ten times."""
        options, inputs, model = self.options, self.inputs, self.inputs.model
        if choices.compile:
            model.compile_blocks()
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
            evaluate=lambda should_stop: validate(
                model,
                self.text.validation.ids,
                sequence_length=inputs.sequence_length,
                utf8_bytes=self.text.validation.utf8_bytes,
                should_stop=should_stop,
            ),
            flops_per_token=flops_per_token(model, inputs.sequence_length),
        )
