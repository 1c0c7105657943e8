"""Every option of every command, once: its name, type, default and help.

The dataclass is the command's signature: `cli.py` turns fields into flags, recipes set the same names,
and a run's config.yaml is written back from them. This file knows the standard library alone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Panel = Literal["Common", "Gate", "Analysis", "Speed", "Run", "More"]
ScheduleName = Literal[
    "cosine", "linear", "constant", "wsd", "openai-cosine", "openai-linear", "openai-constant", "slanted"
]
OptimizerName = Literal["adamw", "muon", "openai-adam"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
CompileChoice = Literal["auto", "on", "off"]
TrackerName = Literal["none", "tensorboard", "wandb", "trackio"]
SpikeRule = Literal["off", "skip"]


def option(
    default: Any,
    help: str,
    *,
    panel: Panel = "Common",
    flag: bool = True,
    conduct: bool = False,
    argument: bool = False,
    short: str | None = None,
    metavar: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """Return a dataclass field whose metadata is all that the command line needs to know.

    `flag=False` makes a rare knob that only recipes set; the panel `More` a flag that the help names without
    explaining. `conduct` options may change when a run is resumed; all others are identity and may not. `minimum`
    and `maximum` are inclusive.
    """
    metadata = {
        "help": help,
        "panel": panel,
        "flag": flag,
        "conduct": conduct,
        "argument": argument,
        "short": short,
        "metavar": metavar,
        "minimum": minimum,
        "maximum": maximum,
    }
    return field(default=default, metadata=metadata)


def knob(default: Any, help: str, **more: Any) -> Any:
    """Return an `option` that only recipes set."""
    return option(default, help, flag=False, **more)


def fields_of(options: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of an options class by name, in order of definition."""
    return {one.name: one for one in dataclasses.fields(options)}


def amended(options: type, name: str, **changes: Any) -> Any:
    """Return an inherited field again, for a subclass to keep in its place with another default or metadata."""
    inherited = fields_of(options)[name]
    default = changes.pop("default", inherited.default)
    return field(default=default, metadata={**inherited.metadata, **changes})


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What every command shares."""

    json: bool = option(False, "Print one JSON object on stdout.", panel="Run", conduct=True)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(OutputOptions):
    """What pretrain and finetune share."""

    model: str | None = option(
        None,
        "A preset (gptkit recipes ls), a config.json, a model directory to go on from, or hf:NAME.",
        short="-m",
        metavar="MODEL",
    )
    out: Path | None = option(None, "Run directory [default: runs/<command>-<name>-<time>].", conduct=True, short="-o")
    learning_rate: float = option(6e-4, "Peak learning rate, of AdamW's part where Muon has the matrices.", minimum=0)
    schedule: ScheduleName = option(
        "cosine",
        "Learning-rate schedule; wsd = warm-up, stable, decay; openai-* = GPT-1's own; slanted = ULMFiT's triangle.",
        panel="More",
    )
    optimizer: OptimizerName = option(
        "adamw", "adamw, muon (matrices by Muon, the rest by AdamW), or GPT-1's own openai-adam."
    )
    weight_decay: float = option(0.1, "Decoupled weight decay of matrices and embeddings.", minimum=0, panel="More")
    dropout: float | None = option(
        None,
        "Dropout of embeddings, attention and residuals [default: the model's own].",
        minimum=0,
        maximum=0.99,
        panel="More",
    )
    seed: int = option(0, "Seed of weights, data order and dropout.", minimum=0, maximum=2**31 - 1)
    on_spike: SpikeRule = option(
        "off",
        "skip = leave a step out whose loss or gradient norm leaps far above those of the last 128.",
        panel="More",
    )

    precision: PrecisionName = option(
        "auto", "Arithmetic of the matrix products; auto = bf16 where the processor has it.", panel="Speed"
    )
    compile: CompileChoice = option(
        "auto", "torch.compile; auto = where it pays for itself within the run.", panel="Speed"
    )
    device: DeviceName = option("auto", "Where to compute.", panel="Speed")
    micro_batch: int | None = option(
        None,
        "Most sequences of one forward pass [default: chosen by device and model].",
        panel="Speed",
        conduct=True,
        minimum=1,
    )

    log_every: int = option(10, "Steps between rows of metrics.jsonl.", panel="Run", conduct=True, minimum=1)
    eval_every: int | None = option(
        None,
        "Steps between validations [default: a tenth of the run, at least 10].",
        panel="Run",
        conduct=True,
        minimum=1,
    )
    save_every: int | None = option(
        None, "Steps between checkpoints [default: as eval_every].", panel="More", conduct=True, minimum=1
    )
    resume: str = option(
        "auto",
        "auto = go on where --out stopped; never; or a run directory.",
        panel="Run",
        conduct=True,
        metavar="auto|never|DIR",
    )
    num_processes: int | None = option(
        None, "Processes: one for each GPU, or on this CPU [default: 1].", panel="Run", conduct=True, minimum=1
    )
    accelerate_config: str | None = option(
        None,
        "ddp = a copy of the model on each process, fsdp2 = a part of it; or a file of accelerate config.",
        panel="More",
        conduct=True,
        metavar="ddp|fsdp2|FILE",
    )
    report_to: TrackerName = option("none", "Also send metrics to a tracker.", panel="More", conduct=True)
    dry_run: bool = option(
        False, "Show what the run needs in memory, disk and time, and stop.", panel="Run", conduct=True
    )

    keep_checkpoints: int = knob(2, "Committed checkpoints kept, the newest.", conduct=True, minimum=2)
    snapshots: int | None = knob(
        None,
        "Copies of the weights alone kept along the run, evenly spaced [default: 8 below 50M parameters, else 0].",
        conduct=True,
        minimum=0,
    )
    decay_steps: int | None = knob(
        None, "Steps of the decay [default: all after warm-up; a fifth of the run for wsd].", minimum=0
    )
    final_learning_rate: float = knob(0.1, "Learning rate at the end, as a share of the peak.", minimum=0, maximum=1)
    beta1: float = knob(0.9, "Adam's decay of the mean.", minimum=0, maximum=0.9999)
    beta2: float = knob(0.95, "Adam's decay of the square.", minimum=0, maximum=0.99999)
    epsilon: float = knob(1e-8, "Adam's epsilon.", minimum=0)
    clip_norm: float = knob(1.0, "Largest global gradient norm; 0 = no clipping.", minimum=0)
    muon_learning_rate: float = knob(0.02, "Muon's peak learning rate.", minimum=0)
    muon_momentum: float = knob(0.95, "Muon's Nesterov momentum.", minimum=0, maximum=0.9999)
    gradient_checkpointing: bool = knob(False, "Recompute activations in the backward pass to save memory.")


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(TrainingOptions):
    """Train a GPT-1 or GPT-2 model from scratch on raw text."""

    data: tuple[str, ...] = option(
        (),
        "Files, folders, globs of .txt, .txt.gz, .jsonl, .parquet; or hf:NAME[:CONFIG]; none = the embedded corpus.",
        argument=True,
        metavar="[DATA]...",
    )
    validation: str = option(
        "0.1", "A file, or the fraction of the text held out; a single document is cut once.", metavar="FILE|FRACTION"
    )
    tokenizer: str | None = option(
        None,
        "char, bpe:N (trained on the training text), a directory or hf:NAME [default: the model's own, else bpe:4096].",
        short="-t",
        metavar="TOKENIZER",
    )
    steps: int = option(1000, "Optimizer updates.", minimum=1)
    warmup_steps: int = option(0, "Steps over which the learning rate rises from 0.", minimum=0, panel="More")
    tokens_per_step: int = option(8192, "Tokens of one update, over all micro-batches and processes.", minimum=1)
    sequence_length: int | None = option(None, "Tokens of a block [default: the model's n_positions].", minimum=1)
    sample_tokens: int = knob(64, "Tokens of the text sample at each validation; 0 = none.", conduct=True, minimum=0)


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(TrainingOptions):
    """Fine-tune a pre-trained model on a labelled task, as GPT-1 did it."""

    task: str = option(None, "A name of gptkit tasks, or a YAML file of your own task.", metavar="NAME|FILE")
    data: str | None = option(
        None,
        "Folder of the task's files, or of one folder per task; hf: = its own hub data set. Demo tasks need none.",
        metavar="DIR|hf:[NAME[:CONFIG]]",
    )
    model: str | None = amended(
        TrainingOptions, "model", help="A model or run directory, or hf:NAME [default: the newest pretrain run]."
    )
    lm_coef: float = option(
        0.5, "Weight of the auxiliary language-model loss; 0 = without it (GPT-1 paper, 4.1).", minimum=0
    )
    epochs: int = option(3, "Passes over the training examples (GPT-1 paper, 4.1).", minimum=1)
    batch_size: int = option(
        32, "Examples of one update, over all micro-batches and processes (GPT-1 paper, 4.1).", minimum=1
    )
    learning_rate: float = amended(
        TrainingOptions, "learning_rate", default=6.25e-5, help="Peak learning rate (GPT-1 paper, 4.1)."
    )
    optimizer: OptimizerName = amended(
        TrainingOptions,
        "optimizer",
        default="openai-adam",
        help="GPT-1's own openai-adam (its train.py), adamw, or muon (matrices by Muon, the rest by AdamW).",
    )
    schedule: ScheduleName = amended(
        TrainingOptions,
        "schedule",
        default="openai-linear",
        help="Learning-rate schedule: GPT-1's own is openai-linear (GPT-1 paper, 4.1); slanted = ULMFiT's triangle.",
    )
    warmup_steps: float | None = option(
        None,
        "Steps over which the learning rate rises from 0 [default: 0.2% of all (GPT-1 paper, 4.1)].",
        minimum=0,
        panel="More",
    )
    weight_decay: float = amended(
        TrainingOptions,
        "weight_decay",
        default=0.01,
        help="Decoupled weight decay of matrices and embeddings (GPT-1 paper, 4.1).",
    )
    layer_decay: float = option(
        1.0, "Factor on the learning rate for each layer further down; 0.38 = ULMFiT's (its 3.2).", minimum=0, maximum=1
    )
    unfreeze: Literal["all", "gradual"] = option(
        "all", "gradual = the head alone in epoch 1, then one layer more each epoch (ULMFiT, 3.3)."
    )
    transfer_layers: str | None = option(
        None,
        "Keep embeddings and the first N blocks, draw the rest anew; none = all anew [default: keep all].",
        metavar="none|N",
    )
    seeds: int = option(
        1, "Runs with seed, seed + 1, ...; the best by the dev metric becomes model/.", conduct=True, minimum=1
    )
    study: Literal["none", "ablation"] = option(
        "none", "ablation = also without the auxiliary loss and without pre-training (GPT-1 paper, table 5)."
    )
    predict: str | None = option(None, "Write predictions for this split, e.g. test.", conduct=True, metavar="SPLIT")

    precision: PrecisionName = amended(TrainingOptions, "precision", panel="More")
    device: DeviceName = amended(TrainingOptions, "device", panel="More")
    compile: CompileChoice = amended(TrainingOptions, "compile", panel="More")
    micro_batch: int | None = amended(
        TrainingOptions,
        "micro_batch",
        help="Most examples of one forward pass [default: chosen by length].",
        panel="More",
    )
    log_every: int = amended(TrainingOptions, "log_every", panel="More")
    eval_every: int | None = amended(
        TrainingOptions, "eval_every", help="Steps between evaluations on dev [default: an epoch].", panel="More"
    )

    keep_checkpoints: int = amended(
        TrainingOptions, "keep_checkpoints", help="Committed checkpoints kept: the newest, and the best besides."
    )
    beta2: float = amended(
        TrainingOptions, "beta2", default=0.999, help="Adam's decay of the square (GPT-1's train.py)."
    )
    clip_norm: float = amended(
        TrainingOptions, "clip_norm", help="Largest global gradient norm; 0 = no clipping (GPT-1's train.py)."
    )
    classifier_dropout: float = knob(
        0.1, "Dropout of the state that the classifier reads (GPT-1 paper, 4.1).", minimum=0, maximum=0.99
    )


@dataclass(frozen=True, kw_only=True)
class TasksOptions(OutputOptions):
    """List the tasks to fine-tune on."""


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(OutputOptions):
    """Generate text with a model."""

    prompt: str | None = option(
        None, "Text to continue; - reads stdin; none = unconditional.", argument=True, metavar="[PROMPT]"
    )
    prompts: Path | None = option(
        None,
        'Many prompts: a .txt of one a line, or a .jsonl of {"prompt": ...}; again, it goes on where it stopped.',
        metavar="FILE",
    )
    output: Path | None = option(
        None, "Where --prompts writes its samples [default: NAME.samples.jsonl beside it].", metavar="FILE"
    )
    model: str | None = option(
        None, "A model or run directory, or hf:NAME [default: the newest pretrain run].", short="-m", metavar="MODEL"
    )
    max_new_tokens: int = option(200, "Tokens to add at most.", minimum=1)
    top_k: int = option(0, "Keep the k likeliest tokens; 0 = all.", minimum=0)
    top_p: float = option(1.0, "Keep the likeliest tokens that together reach p.", maximum=1)
    top_p_rule: Literal["hf", "openai"] = option(
        "hf",
        "The token that crosses p: hf keeps it (Holtzman et al.), openai drops it (GPT-2's sample.py).",
        panel="More",
    )
    temperature: float = option(1.0, "Divide the logits by this; 0 = greedy.", minimum=0)
    greedy: bool = option(False, "Always take the likeliest token.")
    beams: int = option(
        1, "Beam search for the likeliest text as a whole, with this many beams.", minimum=1, maximum=1000
    )
    repetition_penalty: float = option(
        1.0, "Above 1 makes tokens that are there already less likely (CTRL paper, 4.1).", minimum=0.01
    )
    num_samples: int = option(1, "Samples per prompt.", minimum=1)
    seed: int = option(0, "Seed of the sampling.", minimum=0, maximum=2**31 - 1)
    stop: tuple[str, ...] = option(
        (), "End a text before this string; may be given again; \\n is a line break.", metavar="TEXT"
    )
    ignore_eos: bool = option(False, "Go on past the end of a document: its token is never drawn.", panel="More")
    interactive: bool = option(False, "Ask for prompts one by one; !help lists the commands.")
    show_probs: bool = option(False, "Show each token's probability, rank and likeliest alternatives.")

    quantize: Literal["none", "int8", "int4"] = option("none", "The weights, made as they are read.", panel="Speed")
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto",
        "Arithmetic; auto = fp32, on a GPU bf16. In fp32 a sample's text is the same in any batch.",
        panel="Speed",
    )
    compile: CompileChoice = option(
        "auto", "The compiled decoder; auto = on a CPU with a C compiler, on a GPU for long jobs.", panel="Speed"
    )
    device: DeviceName = option("auto", "Where to compute.", panel="More")

    stream: bool | None = option(
        None,
        "Show the text as it comes, or each sample when it is whole [default: as it comes on a terminal].",
        panel="Run",
    )

    template: str | None = knob(
        None, "What the model reads, {prompt} in it standing for the prompt; prints answers alone."
    )
    sentences: int = knob(
        0, "End a text after this many sentences: . ! or ? before white space; 0 = do not count.", minimum=0
    )
    batch_size: int | None = knob(None, "Most samples decoded together [default: chosen by memory].", minimum=1)


@dataclass(frozen=True, kw_only=True)
class EvalOptions(OutputOptions):
    """Score a model, and compare it with a baseline."""

    task: tuple[str, ...] = option(
        (),
        "NAME, NAME/PROTOCOL or a task's YAML file; repeatable [default: the model's own task, else perplexity].",
        metavar="NAME|FILE",
    )
    suite: Path | None = option(None, "A YAML list of tasks with data and bounds, instead of --task.", metavar="FILE")
    data: str | None = option(
        None,
        "A folder (or file) of the task's data as its authors distribute it, or of one folder per task "
        "[default for the model's own task: where its run found it].",
        metavar="DIR|FILE|hf:NAME",
    )
    model: str | None = option(
        None,
        "A model or run directory, or hf:NAME [default: the newest run that can do it].",
        short="-m",
        metavar="MODEL",
    )
    limit: int | None = option(None, "Evaluate the first examples alone, so many.", minimum=1)
    split: str = option("dev", "The split of a fine-tuned model's task.")
    stride: int | None = option(None, "Tokens from one window to the next, for the perplexity of texts.", minimum=1)
    seed: int = option(0, "Seed of texts that are drawn.", minimum=0, maximum=2**31 - 1)

    baseline: Path | None = option(
        None,
        "Compare with this --output file of an earlier run, or with lm-eval's results.",
        panel="Gate",
        metavar="FILE",
    )
    floor: float | None = option(
        None,
        "The smallest drop that counts, in the metric's unit [default: each metric's own].",
        panel="Gate",
        minimum=0,
    )
    junit: Path | None = option(None, "Write the verdicts as JUnit XML.", panel="Gate", metavar="FILE")
    summary: Path | None = option(None, "Write the verdicts as Markdown.", panel="Gate", metavar="FILE")

    contamination: str | None = option(
        None, "Also look for the examples' 8-grams in this training corpus.", panel="Analysis", metavar="CORPUS"
    )
    all_checkpoints: Path | None = option(
        None, "Evaluate each checkpoint of a run, and draw GPT-1's figure 2.", panel="Analysis", metavar="RUN"
    )

    batch_size: int | None = option(None, "Most sequences at once [default: by length].", panel="Speed", minimum=1)
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto",
        "Arithmetic; auto = fp32, the same numbers everywhere; bf16 is faster, but they differ in their third digit.",
        panel="Speed",
    )
    device: DeviceName = option("auto", "Where to compute.", panel="Speed")

    output: Path | None = option(
        None,
        "Write results and the score of every item: a baseline for later.",
        panel="Run",
        short="-o",
        metavar="FILE",
    )


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(OutputOptions):
    """Import or export a model's weights."""

    source: str = option(
        None,
        "A model directory (safetensors or pytorch_model.bin), nanoGPT's ckpt.pt, or OpenAI's numpy GPT-1 params.",
        argument=True,
        metavar="SRC",
    )
    destination: Path = option(
        None, "The directory to write; it must not exist or be empty.", argument=True, metavar="DST"
    )
    to: Literal["gptkit", "hf"] = option("gptkit", "gptkit, or hf: a directory that plain transformers loads.")
    tokenizer: str | None = option(
        None,
        "Tokenizer to put beside the weights: a directory or hf:NAME [default: the source's own].",
        short="-t",
    )


@dataclass(frozen=True, kw_only=True)
class RecipesListOptions(OutputOptions):
    """List the model presets and the recipes."""


@dataclass(frozen=True, kw_only=True)
class RecipesShowOptions(OutputOptions):
    """Show a preset or a recipe, with every key that it leaves at its default."""

    name: str = option(None, "A name of gptkit recipes ls: NAME or KIND/NAME.", argument=True, metavar="NAME")


@dataclass(frozen=True, kw_only=True)
class RecipesCopyOptions(OutputOptions):
    """Copy a preset or a recipe, to change it."""

    name: str = option(None, "A name of gptkit recipes ls: NAME or KIND/NAME.", argument=True, metavar="NAME")
    destination: Path = option(
        Path(), "The folder or the new file to copy to [default: here].", argument=True, metavar="[DST]"
    )


@dataclass(frozen=True, kw_only=True)
class EnvOptions(OutputOptions):
    """Show versions, processor, GPUs, compiler and folders."""


@dataclass(frozen=True, kw_only=True)
class TokenizerTrainOptions(OutputOptions):
    """Make the tokenizer that pretrain would make of the same text."""

    data: tuple[str, ...] = option(
        (), "Text to train on, as for pretrain. None = the embedded corpus.", argument=True, metavar="[DATA]..."
    )
    validation: str = option(
        "0.1", "What pretrain will hold out: the tokenizer is not trained on it.", metavar="FILE|FRACTION"
    )
    tokenizer: str = option(
        "bpe:4096", "char, or bpe:N for a byte-level BPE of N entries.", short="-t", metavar="char|bpe:N"
    )
    out: Path = option(Path("tokenizer"), "Directory to write; it must not exist or be empty.", short="-o")


@dataclass(frozen=True, kw_only=True)
class TokenizerCompareOptions(OutputOptions):
    """Compare two tokenizers on a text: tokens per byte and word, shared entries, ids, speed."""

    first: str = option(
        None, "A directory, hf:NAME, or char or bpe:N, which are trained on the text.", argument=True, metavar="A"
    )
    second: str = option(None, "The other one.", argument=True, metavar="B")
    data: tuple[str, ...] = option(
        (), "Text to compare on, as for pretrain. None = the embedded corpus.", argument=True, metavar="[DATA]..."
    )
    megabytes: float = option(10.0, "Compare on this much of the text at most.", minimum=0.001)
