"""A fine-tuning run: batches, rates, loss and evaluation for the training loop, and its plan for `--dry-run`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gptkit.errors import UsageError
from gptkit.finetune.inputs import Inputs, depth_of
from gptkit.finetune.options import FinetuneOptions
from gptkit.finetune.study import variants_of
from gptkit.model.configuration_gpt import mask_token_of
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel, padded_positions, predicting_positions
from gptkit.model.modeling_gpt import compile_blocks
from gptkit.report.dry_run import PlannedRun, show_plan
from gptkit.report.memory_plan import Workload
from gptkit.tasks.encoding import EncodedExamples, Indices
from gptkit.tasks.head_outputs import PREDICTION_TOKENS, evaluate_head, evaluation_pieces
from gptkit.tasks.heads import metrics_of
from gptkit.text.blocks import block_order
from gptkit.text.masking import NOT_CHOSEN, mask_row
from gptkit.training import rules
from gptkit.training.batches import Batch, Batches, MicroBatch, ShouldStop
from gptkit.training.job import MicroBatching, TrainingJob, make_plan, make_schedule
from gptkit.training.memory import own_memory
from gptkit.training.optimizers import Layer, LayerOf, OptimizerSet, build_optimizer
from gptkit.training.rules import Choices, Hardware
from gptkit.training.run import Session
from gptkit.training.schedules import Schedule

PROBED_BATCHES = 4  # of a dry run's evaluation, the longest examples first
WARMUP_FRACTION = 0.002  # of all updates (GPT-1 paper, 4.1)
CPU_TOKENS = 1024  # per training pass with padding: on RTE 3.5 passes per 32 examples, 22% padding
NARROW_WIDTH, NARROW_TOKENS = 512, 2048  # below this width matrix products are too small for the cores
Load = Callable[[Indices], Batch]  # of the examples with these numbers


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
    def forward_passes(self) -> int:
        """Forward passes of a training batch: a masked model's auxiliary loss takes a second one, of masked texts."""
        return 1 + (mask_token_of(self.model.config) is not None and self.options.lm_coef > 0)

    @property
    def flops_per_token(self) -> float:
        """FLOPs of a training step per token; the LM head counts only with the auxiliary loss, frozen weights never.

        The head of a masked model's second pass, for 15% of the tokens, is left out.
        """
        model, train = self.model, self.inputs.train
        if self.options.features != "none":
            return 0.0
        table = 0 if self.options.lm_coef and self.forward_passes == 1 else model.transformer.wte.weight.numel()
        length = int(train.tokens.mean() / train.sequences_per_example)
        return self.forward_passes * rules.flops_per_token(model, length, idle=table)

    @cached_property
    def max_padded_tokens(self) -> int:
        """The most tokens of a forward pass, padding included, unless a single example has more."""
        if self.hardware.kind == "cpu":
            return CPU_TOKENS if self.model.config.n_embd >= NARROW_WIDTH else NARROW_TOKENS
        train = self.inputs.train
        longest, most = int(train.lengths.max()), self.options.batch_size * train.sequences_per_example
        return rules.choose_micro_batch(self.hardware, self.model, rows=most, sequence_length=longest) * longest

    @property
    def micro_batching(self) -> MicroBatching:
        """How batches are split into micro-batches, unless memory runs out."""
        train, size, seed = self.inputs.train, self.options.batch_size, self.options.seed
        limit = self.max_padded_tokens
        micro_batch = self.options.micro_batch or rules.micro_batch_rows(size, self.options.processes)

        mask = mask_token_of(self.model.config) if self.options.lm_coef else None

        def batches_of(examples: int) -> Batches:
            sizes = {"batch_size": size, "micro_batch": examples, "padded_tokens": limit}
            return finetuning_batches(train, seed=seed, mask=mask, **sizes)

        longest_first = np.argsort(-train.lengths, kind="stable")  # no batch has more tokens than the longest examples
        load = partial(_training_batch, train, mask=mask, seed=seed, epoch=0)
        return MicroBatching(
            micro_batch=min(micro_batch, size),
            batches_of=batches_of,
            largest=lambda examples: _micro_batches(train, longest_first[:size], examples, limit, load),
            has_dropout=self.model.has_dropout,
            unit="examples",
        )

    def job(self, choices: Choices) -> TrainingJob:
        """Return the job for the training loop; by default it is evaluated and saved after each epoch."""
        options = self.options
        layer_of = None
        if options.layer_decay != 1.0 or options.unfreeze == "gradual":  # a learning rate per layer, as in ULMFiT
            layer_of = layer_rates(
                self.model.config.n_layer,
                decay=options.layer_decay,
                unfreeze=options.unfreeze,
                steps_per_epoch=self.steps_per_epoch,
            )
        parameters = self.model.named_parameters()
        return TrainingJob(
            model=self.model,
            micro_batching=self.micro_batching.at_most(choices.micro_batch),
            loss_function=partial(double_heads_loss, lm_coef=options.lm_coef),
            optimizer=build_optimizer(parameters, options, precision=choices.precision, layer_of=layer_of),
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
            compile_blocks=partial(compile_blocks, dynamic=True),  # about a hundred shapes
            flops_per_token=self.flops_per_token,
        )

    def _evaluate(self, should_stop: ShouldStop) -> dict[str, float]:
        """Return the task's metrics on dev, and the classifier's mean loss as val_loss."""
        dev = self.inputs.dev
        found = evaluate_head(self.model, dev, should_stop=should_stop)
        assert found.loss is not None
        return {"val_loss": found.loss, **metrics_of(self.inputs.task, found.logits, dev.targets)}

    def rate_lines(self, optimizer: OptimizerSet) -> list[str]:
        """Return a line on each group's learning rate, none where all parameters share an ordinary schedule."""
        rates, steps = optimizer.rates(), self.steps
        if len(rates) == 1 and self.options.schedule != "slanted":
            return []
        return [
            f"{rate.layer}: learning rate {rate.peak:.3g}"
            + (f" from step {rate.first_step}" if rate.first_step <= steps else f", frozen for all {steps} steps")
            for rate in rates
        ]


def plan_finetune(options: FinetuneOptions, inputs: Inputs, choices: Choices, session: Session) -> dict[str, Any]:
    """Show and return the plan of these options, over all seeds and variants; see `report.dry_run` for its keys."""
    baseline = own_memory() or 0
    runs = options.seeds * max(1, len(variants_of(options.study, options.lm_epochs)))
    if runs > 1:
        options = dataclasses.replace(options, snapshots=options.snapshots or 0)  # as several seeds have
    tuned, train, dev = inputs.model(options), inputs.train, inputs.dev
    with torch.device("meta"):
        model = type(tuned)(tuned.config)
    run = FinetuneRun(options, inputs, model, session.hardware)
    longest = train.padded(int(train.lengths.max()))

    def passes_on(hardware: Hardware) -> tuple[int, int]:
        """Return how many of the longest sequences fill the forward passes of a micro-batch, and the micro-batches."""
        there = dataclasses.replace(run, hardware=hardware)
        most = there.micro_batching.micro_batch * train.sequences_per_example
        rows = max(1, min(most, there.max_padded_tokens // longest))
        return there.forward_passes * rows, len(there.micro_batching.batches(1))

    def probed_job() -> tuple[TrainingJob, float]:
        pieces = evaluation_pieces(dev)[:PROBED_BATCHES]

        def evaluate(should_stop: ShouldStop) -> dict[str, float]:
            logits = evaluate_head(tuned, dev, pieces, should_stop=should_stop).logits
            return metrics_of(inputs.task, logits, dev.targets)  # their library takes memory, too

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
        tokens_per_step=float(train.tokens.mean()) * min(options.batch_size, len(train)),  # on average, unpadded
        baseline=baseline,
        runs=runs,
        facts={
            "task": inputs.task.name,
            "model": inputs.model_name,
            "vocabulary": model.config.vocab_size,
            "n_train": len(train),
            "runs": runs,
            "epochs": options.epochs,
            "data_sha256": inputs.identity["data_sha256"],
        },
        probed_job=probed_job,
    )
    return show_plan(planned, session)


def double_heads_loss(model: nn.Module, batch: Batch, count: Tensor, *, lm_coef: float) -> Tensor:
    """Return a micro-batch's summed L3 = L2 + lm_coef * L1 (GPT-1 paper, 3.2) divided by the step's `count`."""
    loss: Tensor = model(**batch, lm_coef=lm_coef, num_items_in_batch=count, loss_only=True).loss
    return loss


def schedule_of(options: FinetuneOptions, steps: int) -> Schedule:
    warmup = WARMUP_FRACTION * steps if options.warmup_steps is None else options.warmup_steps
    return make_schedule(options, steps=steps, warmup_steps=warmup)


def check_learning_rate_nonzero(options: FinetuneOptions, inputs: Inputs) -> None:
    """Raise UsageError if no step would learn: OpenAI's warm-up gives the first update a learning rate of 0."""
    steps = steps_per_epoch(len(inputs.train), options.batch_size) * options.epochs
    rate = schedule_of(options, steps)
    if any(rate(step) > 0 for step in range(1, steps + 1)):
        return
    message = f"the learning rate is 0 at each of the {steps} update(s)"
    raise UsageError(message, where="--epochs", fix="raise --epochs, lower --batch-size, or pass --warmup-steps 0")


def layer_rates(n_layer: int, *, decay: float, unfreeze: Literal["all", "gradual"], steps_per_epoch: int) -> LayerOf:
    """Return the function from a parameter's name to its layer: its learning-rate factor, and the first step it learns.

    The factor is decay^(layers below the top). With gradual unfreezing only the top learns in the first epoch, and each
    later epoch adds the next layer below; a tied head is unfrozen with the embeddings (ULMFiT: Howard and Ruder 2018,
    sections 3.2 and 3.3).
    """
    top = n_layer + 1
    titles = {0: "embeddings", top: "head"}

    def layer_of(name: str) -> Layer:
        depth = depth_of(name, n_layer)
        first_step = 1 + (top - depth) * steps_per_epoch if unfreeze == "gradual" else 1
        return Layer(titles.get(depth, f"block {depth - 1}"), decay ** (top - depth), first_step)

    return layer_of


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Return the batches of an epoch of n examples, at least 1; an incomplete last one is dropped, as in GPT-1."""
    return max(1, n // batch_size)


def finetuning_batches(
    train: EncodedExamples, *, batch_size: int, seed: int, micro_batch: int, padded_tokens: int, mask: int | None = None
) -> Batches:
    """Return the function from a step to its global batch, longest examples first, cut into micro-batches.

    It is pure, given the seed. Each micro-batch has at most `micro_batch` examples and `padded_tokens` tokens, padding
    included, or a single example with more. With a `mask` token each batch has its masked texts too, in every epoch
    with other masks.
    """
    steps = steps_per_epoch(len(train), batch_size)
    order = lru_cache(maxsize=2)(lambda epoch: block_order(seed, epoch, len(train)))

    def batches(step: int) -> list[MicroBatch]:
        epoch, turn = divmod(step - 1, steps)
        chosen = order(epoch)[turn * batch_size : (turn + 1) * batch_size]
        load = partial(_training_batch, train, mask=mask, seed=seed, epoch=epoch)
        return _micro_batches(train, chosen, micro_batch, padded_tokens, load, first_row=(step - 1) * batch_size)

    return batches


def _micro_batches(
    examples: EncodedExamples, chosen: Indices, most: int, padded_tokens: int, load: Load, first_row: int = 0
) -> list[MicroBatch]:
    return [
        MicroBatch(
            first_row + start,
            len(indices),
            partial(load, indices),
            int(examples.tokens[indices].sum()),
        )
        for start, indices in examples.cut_by_length(chosen, most, padded_tokens)
    ]


def _training_batch(examples: EncodedExamples, indices: Indices, *, mask: int | None, seed: int, epoch: int) -> Batch:
    batch = {name: torch.from_numpy(array) for name, array in examples.select(indices).items()}
    if mask is None:
        return batch | {"lm_positions": predicting_positions(batch["extract"], batch["input_ids"].shape[-1])}
    numbers = (epoch * len(examples) + indices) * examples.sequences_per_example  # of each example's first sequence
    ids = batch["input_ids"].numpy()
    read, targets = ids.copy(), np.full_like(ids, NOT_CHOSEN)
    for (example, sequence), end in np.ndenumerate(batch["extract"].numpy()):
        place = ids[example, sequence]
        is_text = (np.arange(len(place)) < end) & (place < mask)  # neither padding nor markers
        found = mask_row(place[is_text], mask, seed=seed, row=int(numbers[example]) + sequence)
        read[example, sequence, is_text], targets[example, sequence, is_text] = found
    masked = {"masked_ids": torch.from_numpy(read), "masked_targets": torch.from_numpy(targets)}
    return batch | masked | {"lm_positions": padded_positions(masked["masked_targets"] != NOT_CHOSEN)}
