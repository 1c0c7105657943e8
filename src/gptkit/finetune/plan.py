"""From the options of a fine-tuning run to what the loop is given: steps, batches, rates, loss and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from gptkit.errors import UsageError
from gptkit.finetune.batches import finetuning_batches, fullest_passes, steps_per_epoch
from gptkit.finetune.inputs import Inputs
from gptkit.finetune.layers import layers
from gptkit.finetune.options import FinetuneOptions
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.tasks.encoding import EncodedExamples
from gptkit.tasks.heads import evaluate_head, metrics_of
from gptkit.tasks.task import Task
from gptkit.training import rules
from gptkit.training.batches import Batches, ShouldStop
from gptkit.training.hardware import Hardware
from gptkit.training.job import Evaluate, MicroBatching
from gptkit.training.optimizers import OptimizerSet, build_optimizer
from gptkit.training.plans import Plan, make_plan, make_schedule
from gptkit.training.rules import Choices
from gptkit.training.schedules import Schedule

WARMUP_SHARE = 0.002  # of all updates: GPT-1 paper, 4.1
CPU_TOKENS = 1024  # of a training pass, padding included: on RTE 3.5 passes of 32 examples, 22% of them padding
NARROW, NARROW_TOKENS = 512, 2048  # narrower models have products too small for the cores, and pay for more padding


@dataclass(frozen=True)
class Length:
    """How long a run is, in optimizer updates."""

    steps_per_epoch: int
    steps: int

    def epoch_of(self, step: int) -> int:
        """Return the epoch, from 1 on, that a step belongs to."""
        return -(-step // self.steps_per_epoch)


def length_of(options: FinetuneOptions, inputs: Inputs) -> Length:
    each = steps_per_epoch(len(inputs.train), options.batch_size)
    return Length(each, each * options.epochs)


def choices(options: FinetuneOptions, hardware: Hardware) -> Choices:
    """Return the run's arithmetic; auto never compiles here, where nearly every batch has a length of its own."""
    return rules.choose(options.precision, options.compile, hardware)


def cutting(options: FinetuneOptions, inputs: Inputs, model: GPTDoubleHeadsModel, hardware: Hardware) -> MicroBatching:
    """Return how the batches are split, unless memory runs out."""
    padded, size = padded_tokens(options, inputs, model, hardware), options.batch_size
    micro_batch = options.micro_batch or rules.micro_batch_rows(size, options.num_processes or 1)

    def batches_of(examples: int) -> Batches:
        return finetuning_batches(
            inputs.train, batch_size=size, seed=options.seed, micro_batch=examples, padded_tokens=padded
        )

    return MicroBatching(
        micro_batch=min(micro_batch, size),
        batches_of=batches_of,
        largest=lambda examples: fullest_passes(
            inputs.train, batch_size=size, micro_batch=examples, padded_tokens=padded
        ),
        has_dropout=model.has_dropout,
        unit="examples",
    )


def refuse_too_many_processes(options: FinetuneOptions) -> None:
    """Raise UsageError where a step has fewer examples than there are processes."""
    processes = options.num_processes or 1
    fix = f"give --batch-size {processes}, or --num-processes {options.batch_size}"
    rules.refuse_too_many_processes(options.batch_size, processes, where="--num-processes", fix=fix)


def padded_tokens(options: FinetuneOptions, inputs: Inputs, model: GPTDoubleHeadsModel, hardware: Hardware) -> int:
    """Return the most tokens of a forward pass, padding included, unless one example alone has more."""
    if hardware.kind == "cpu":
        return CPU_TOKENS if model.config.n_embd >= NARROW else NARROW_TOKENS
    return _gpu_tokens(options, inputs, model, hardware)


def _gpu_tokens(options: FinetuneOptions, inputs: Inputs, model: GPTDoubleHeadsModel, hardware: Hardware) -> int:
    longest, config = int(inputs.train.lengths.max()), model.config
    rows = rules.choose_micro_batch(
        hardware,
        rows=options.batch_size * inputs.train.sequences_per_example,
        sequence_length=longest,
        parameters=model.num_parameters(),
        n_layer=config.n_layer,
        n_embd=config.n_embd,
    )
    return rows * longest


def optimizer(options: FinetuneOptions, inputs: Inputs, model: GPTDoubleHeadsModel, precision: str) -> OptimizerSet:
    """Return the optimizer, with ULMFiT's rate for each layer where that is asked for."""
    layer_of = None
    if options.layer_decay != 1.0 or options.unfreeze == "gradual":
        layer_of = layers(
            model.config.n_layer,
            decay=options.layer_decay,
            unfreeze=options.unfreeze,
            steps_per_epoch=length_of(options, inputs).steps_per_epoch,
        )
    return build_optimizer(model.named_parameters(), options, precision=precision, layer_of=layer_of)


def rate_lines(options: FinetuneOptions, inputs: Inputs, optimizer: OptimizerSet) -> list[str]:
    """Return what to say about the rates: of every group, where the options make them a matter of ULMFiT's."""
    rates, steps = optimizer.rates(), length_of(options, inputs).steps
    if len(rates) == 1 and options.schedule != "slanted":
        return []
    return [
        f"{rate.layer}: learning rate {rate.peak:.3g} "
        + (f"from step {rate.first_step}" if rate.first_step <= steps else f"never: the run ends at step {steps}")
        for rate in rates
    ]


def schedule(options: FinetuneOptions, inputs: Inputs) -> Schedule:
    steps = length_of(options, inputs).steps
    warmup = WARMUP_SHARE * steps if options.warmup_steps is None else options.warmup_steps
    return make_schedule(options, steps=steps, warmup_steps=warmup)


def refuse_idle_run(options: FinetuneOptions, inputs: Inputs) -> None:
    """Raise UsageError where no step would learn: OpenAI's warm-up gives the first update the rate 0."""
    rate, steps = schedule(options, inputs), length_of(options, inputs).steps
    if any(rate(step) > 0 for step in range(1, steps + 1)):
        return
    message = f"the learning rate is 0 at each of the {steps} update(s)"
    raise UsageError(message, where="--epochs", fix="give more epochs, a smaller --batch-size or --warmup-steps 0")


def plan(options: FinetuneOptions, inputs: Inputs, model: GPTDoubleHeadsModel, arithmetic: Choices) -> Plan:
    """Return when to do what: by default an evaluation and a checkpoint an epoch."""
    length = length_of(options, inputs)
    return make_plan(
        options,
        arithmetic,
        steps=length.steps,
        eval_every=length.steps_per_epoch,
        parameters=model.num_parameters(),
        identity=inputs.identity,
        best_by=inputs.task.metrics[0],
    )


def evaluation(task: Task, model: GPTDoubleHeadsModel, dev: EncodedExamples) -> Evaluate:
    """Return what scores the dev set: the task's metrics, and the classifier's mean loss as val_loss."""

    def evaluate(should_stop: ShouldStop) -> dict[str, float]:
        found = evaluate_head(model, dev, should_stop=should_stop)
        assert found.loss is not None
        return {"val_loss": found.loss, **metrics_of(task, found.logits, dev.targets)}

    return evaluate


def flops_per_token(options: FinetuneOptions, inputs: Inputs, model: GPTDoubleHeadsModel) -> float:
    """Return the FLOPs of a step for each token: without an auxiliary loss the tied head multiplies nothing."""
    config, table = model.config, model.transformer.wte.weight.numel()
    parameters = model.num_parameters() - model.transformer.wpe.weight.numel() - (0 if options.lm_coef else table)
    return rules.flops_per_token(
        parameters,
        n_layer=config.n_layer,
        n_embd=config.n_embd,
        sequence_length=int(inputs.train.tokens.mean() / inputs.train.sequences_per_example),
    )
