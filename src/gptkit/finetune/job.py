"""One fine-tuning run as the training loop takes it: steps, batches, rates, loss and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from gptkit.errors import UsageError
from gptkit.finetune.inputs import Inputs
from gptkit.finetune.options import FinetuneOptions
from gptkit.finetune.transfer import depth_of
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel, predicting_positions
from gptkit.tasks.encoding import EncodedExamples, Indices
from gptkit.tasks.heads import evaluate_head, metrics_of
from gptkit.text.blocks import block_order
from gptkit.training import rules
from gptkit.training.batches import Batch, Batches, MicroBatch, ShouldStop
from gptkit.training.job import LossFunction, MicroBatching, TrainingJob, make_plan, make_schedule
from gptkit.training.optimizers import Layer, LayerOf, OptimizerSet, build_optimizer
from gptkit.training.rules import Choices, Hardware
from gptkit.training.schedules import Schedule

WARMUP_FRACTION = 0.002  # of all updates: GPT-1 paper, 4.1
CPU_TOKENS = 1024  # of a training pass, padding included: on RTE 3.5 passes of 32 examples, 22% of them padding
NARROW_WIDTH, NARROW_TOKENS = 512, 2048  # narrower models have products too small for the cores, and pay for padding


@dataclass(frozen=True)
class FinetuneRun:
    """A run of these options on this hardware."""

    options: FinetuneOptions
    inputs: Inputs
    model: GPTDoubleHeadsModel
    hardware: Hardware

    @cached_property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.inputs.train), self.options.batch_size)

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.options.epochs

    @property
    def flops_per_token(self) -> float:
        """FLOPs of a step for each token: without an auxiliary loss the tied head multiplies nothing."""
        model, train = self.model, self.inputs.train
        table = 0 if self.options.lm_coef else model.transformer.wte.weight.numel()
        return rules.flops_per_token(
            model.num_parameters() - model.transformer.wpe.weight.numel() - table,
            n_layer=model.config.n_layer,
            n_embd=model.config.n_embd,
            sequence_length=int(train.tokens.mean() / train.sequences_per_example),
        )

    @cached_property
    def max_padded_tokens(self) -> int:
        """The most tokens of a forward pass, padding included, unless one example alone has more."""
        config, train = self.model.config, self.inputs.train
        if self.hardware.kind == "cpu":
            return CPU_TOKENS if config.n_embd >= NARROW_WIDTH else NARROW_TOKENS
        longest = int(train.lengths.max())
        rows = rules.choose_micro_batch(
            self.hardware,
            rows=self.options.batch_size * train.sequences_per_example,
            sequence_length=longest,
            parameters=self.model.num_parameters(),
            n_layer=config.n_layer,
            n_embd=config.n_embd,
        )
        return rows * longest

    @property
    def micro_batching(self) -> MicroBatching:
        """How the batches are split, unless memory runs out."""
        train, size, seed = self.inputs.train, self.options.batch_size, self.options.seed
        limit = self.max_padded_tokens
        micro_batch = self.options.micro_batch or rules.micro_batch_rows(size, self.options.num_processes or 1)

        def batches_of(examples: int) -> Batches:
            return finetuning_batches(train, batch_size=size, seed=seed, micro_batch=examples, padded_tokens=limit)

        return MicroBatching(
            micro_batch=min(micro_batch, size),
            batches_of=batches_of,
            largest=lambda examples: largest_micro_batches(
                train, batch_size=size, micro_batch=examples, padded_tokens=limit
            ),
            has_dropout=self.model.has_dropout,
            unit="examples",
        )

    def job(self, choices: Choices) -> TrainingJob:
        """Return what the loop trains; by default it evaluates and saves once an epoch."""
        options = self.options
        if choices.compile:
            self.model.compile_blocks(dynamic=True)  # its batches have some hundred shapes
        return TrainingJob(
            model=self.model,
            micro_batching=self.micro_batching.at_most(choices.micro_batch),
            loss_function=double_heads_loss(options.lm_coef),
            optimizer=self._optimizer(choices.precision),
            schedule=schedule_of(options, self.steps),
            plan=make_plan(
                options,
                choices,
                steps=self.steps,
                eval_every=self.steps_per_epoch,
                parameters=self.model.num_parameters(),
                identity=self.inputs.identity,
                best_by=self.inputs.task.metrics[0],
            ),
            evaluate=self._evaluate,
            flops_per_token=self.flops_per_token,
        )

    def _optimizer(self, precision: str) -> OptimizerSet:
        """Return the optimizer, with ULMFiT's rate for each layer where that is asked for."""
        options, layer_of = self.options, None
        if options.layer_decay != 1.0 or options.unfreeze == "gradual":
            layer_of = layer_rates(
                self.model.config.n_layer,
                decay=options.layer_decay,
                unfreeze=options.unfreeze,
                steps_per_epoch=self.steps_per_epoch,
            )
        return build_optimizer(self.model.named_parameters(), options, precision=precision, layer_of=layer_of)

    def _evaluate(self, should_stop: ShouldStop) -> dict[str, float]:
        """Return the task's metrics on dev, and the classifier's mean loss as val_loss."""
        dev = self.inputs.dev
        found = evaluate_head(self.model, dev, should_stop=should_stop)
        assert found.loss is not None
        return {"val_loss": found.loss, **metrics_of(self.inputs.task, found.logits, dev.targets)}

    def rate_lines(self, optimizer: OptimizerSet) -> list[str]:
        """Return what to say about the rates: of every group, where the options make them a matter of ULMFiT's."""
        rates, steps = optimizer.rates(), self.steps
        if len(rates) == 1 and self.options.schedule != "slanted":
            return []
        return [
            f"{rate.layer}: learning rate {rate.peak:.3g} "
            + (f"from step {rate.first_step}" if rate.first_step <= steps else f"never: the run ends at step {steps}")
            for rate in rates
        ]


def double_heads_loss(lm_coef: float) -> LossFunction:
    """Return the loss L3 = L2 + lm_coef * L1 of a step (GPT-1 paper, section 3.2).

    Over its micro-batches, it is the sum of their examples' losses over the step's `count`.
    """

    def loss_function(model: nn.Module, batch: Batch, count: Tensor) -> Tensor:
        loss: Tensor = model(**batch, lm_coef=lm_coef, num_items_in_batch=count, loss_only=True).loss
        return loss

    return loss_function


def schedule_of(options: FinetuneOptions, steps: int) -> Schedule:
    warmup = WARMUP_FRACTION * steps if options.warmup_steps is None else options.warmup_steps
    return make_schedule(options, steps=steps, warmup_steps=warmup)


def check_learning_rate_nonzero(options: FinetuneOptions, inputs: Inputs) -> None:
    """Raise UsageError where no step would learn: OpenAI's warm-up gives the first update the rate 0."""
    steps = steps_per_epoch(len(inputs.train), options.batch_size) * options.epochs
    rate = schedule_of(options, steps)
    if any(rate(step) > 0 for step in range(1, steps + 1)):
        return
    message = f"the learning rate is 0 at each of the {steps} update(s)"
    raise UsageError(message, where="--epochs", fix="give more epochs, a smaller --batch-size or --warmup-steps 0")


def layer_rates(n_layer: int, *, decay: float, unfreeze: Literal["all", "gradual"], steps_per_epoch: int) -> LayerOf:
    """Return the layer of each parameter of a GPT with any head, by its name: its rate, and the step it joins in.

    The rate is the peak times decay^(layers below the top). With gradual unfreezing the top alone learns in the first
    epoch, and each later epoch adds the next layer below; tied heads wait with the embeddings (ULMFiT: Howard and Ruder
    2018, sections 3.2 and 3.3).
    """
    top = n_layer + 1
    titles = {0: "embeddings", top: "head"}

    def layer_of(name: str) -> Layer:
        depth = depth_of(name, n_layer)
        first_step = 1 + (top - depth) * steps_per_epoch if unfreeze == "gradual" else 1
        return Layer(titles.get(depth, f"block {depth - 1}"), decay ** (top - depth), first_step)

    return layer_of


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Return how many batches an epoch of n examples has: the rest is dropped (as GPT-1 did), unless it is all."""
    return max(1, n // batch_size)


def finetuning_batches(
    examples: EncodedExamples, *, batch_size: int, seed: int, micro_batch: int, padded_tokens: int
) -> Batches:
    """Return the global batch of each step, a pure function of (seed, step), longest first, cut into micro-batches.

    Each has at most `micro_batch` examples and, unless one alone has more, `padded_tokens` tokens with the padding.
    """
    steps = steps_per_epoch(len(examples), batch_size)
    order = lru_cache(maxsize=2)(lambda epoch: block_order(seed, epoch, len(examples)))

    def batches(step: int) -> list[MicroBatch]:
        epoch, turn = divmod(step - 1, steps)
        chosen = order(epoch)[turn * batch_size : (turn + 1) * batch_size]
        return _micro_batches(examples, chosen, micro_batch, padded_tokens, first_row=(step - 1) * batch_size)

    return batches


def largest_micro_batches(
    examples: EncodedExamples, *, batch_size: int, micro_batch: int, padded_tokens: int
) -> list[MicroBatch]:
    """Return the micro-batches that the longest examples would be cut into: no other batch has more tokens."""
    longest = np.argsort(-examples.lengths, kind="stable")[:batch_size]
    return _micro_batches(examples, longest, micro_batch, padded_tokens)


def _micro_batches(
    examples: EncodedExamples, chosen: Indices, most: int, padded_tokens: int, first_row: int = 0
) -> list[MicroBatch]:
    return [
        MicroBatch(
            first_row + start,
            len(indices),
            partial(_training_batch, examples, indices),
            int(examples.tokens[indices].sum()),
        )
        for start, indices in examples.cut_by_length(chosen, most, padded_tokens)
    ]


def _training_batch(examples: EncodedExamples, indices: Indices) -> Batch:
    batch = {name: torch.from_numpy(array) for name, array in examples.select(indices).items()}
    return batch | {"lm_positions": predicting_positions(batch["extract"], batch["input_ids"].shape[-1])}
