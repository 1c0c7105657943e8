"""The options that pretrain and finetune share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gptkit.errors import UsageError, suggest
from gptkit.options import CompileChoice, DeviceName, ReadingOptions, option, recipe_only
from gptkit.recipes import recipes_root

ScheduleName = Literal[
    "cosine", "linear", "constant", "wsd", "openai-cosine", "openai-linear", "openai-constant", "slanted"
]
OptimizerName = Literal["adamw", "muon", "openai-adam"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
TrackerName = Literal["none", "tensorboard", "wandb", "trackio"]
SpikeRule = Literal["off", "skip"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(ReadingOptions):
    """The options of every training run; pretrain and finetune add their own."""

    model: str | None = option(
        None,
        "A preset (gptkit recipes ls), a config.json, a model directory to continue training, or hf:NAME.",
        short="-m",
        metavar="MODEL",
    )
    out: Path | None = option(None, "Run directory [default: a new one under runs/].", resumable=True, short="-o")
    learning_rate: float = option(6e-4, "Peak learning rate (with muon, that of the AdamW part).", minimum=0)
    schedule: ScheduleName = option(
        "cosine",
        "Learning-rate schedule; wsd = warm-up, stable, decay; openai-* = GPT-1's own; slanted = ULMFiT's.",
        panel="Advanced",
    )
    optimizer: OptimizerName = option(
        "adamw", "adamw, muon (Muon for matrices, AdamW for the rest), or GPT-1's own openai-adam."
    )
    weight_decay: float = option(0.1, "Decoupled weight decay of matrices and embeddings.", minimum=0, panel="Advanced")
    dropout: float | None = option(
        None,
        "Dropout of embeddings, attention and residuals [default: the model's own].",
        minimum=0,
        maximum=0.99,
        panel="Advanced",
    )
    seed: int = option(0, "Seed for initial weights, data order and dropout.", minimum=0, maximum=2**31 - 1)
    on_spike: SpikeRule = option(
        "off",
        "skip = skip steps whose loss or gradient norm rises far above those of the last 128 steps.",
        panel="Advanced",
    )

    precision: PrecisionName = option(
        "auto", "Precision of matrix products; auto = bf16 if the hardware has it, else fp32.", panel="Speed"
    )
    compile: CompileChoice = option(
        "auto", "Use torch.compile; auto = only if it saves more time than it takes.", panel="Advanced"
    )
    device: DeviceName = option("auto", "Device; auto = a GPU if there is one.", panel="Advanced")
    micro_batch: int | None = option(
        None,
        "Maximum sequences per forward pass [default: chosen by device and model].",
        panel="Advanced",
        resumable=True,
        minimum=1,
    )

    log_every: int = option(10, "Steps between rows of metrics.jsonl.", panel="Advanced", resumable=True, minimum=1)
    eval_every: int | None = option(
        None,
        "Steps between validations [default: a tenth of the run, at least 10].",
        panel="Run",
        resumable=True,
        minimum=1,
    )
    save_every: int | None = option(
        None, "Steps between checkpoints [default: --eval-every].", panel="Advanced", resumable=True, minimum=1
    )
    resume: str = option(
        "auto",
        "auto = resume the run in --out; never = require an empty --out; DIR = resume that run.",
        panel="Run",
        resumable=True,
        metavar="auto|never|DIR",
    )
    num_processes: int | None = option(
        None,
        "Number of processes: up to one per GPU, or several on the CPU [default: 1].",
        panel="Run",
        resumable=True,
        minimum=1,
    )
    accelerate_config: str | None = option(
        None,
        "ddp = every process holds the whole model, fsdp2 = the processes shard it; or a file written by "
        "accelerate config.",
        panel="Advanced",
        resumable=True,
        metavar="ddp|fsdp2|FILE",
    )
    report_to: TrackerName = option("none", "Also send metrics to a tracker.", panel="Advanced", resumable=True)
    dry_run: bool = option(
        False, "Show how much memory, disk and time the run needs, and exit.", panel="Run", resumable=True
    )

    keep_checkpoints: int = recipe_only(
        2,
        "Number of newest checkpoints to keep, in addition to the best one, if there is one.",
        resumable=True,
        minimum=2,
    )
    snapshots: int | None = recipe_only(
        None,
        "Number of evenly spaced copies of the weights to keep [default: 8 below 50M parameters, else 0].",
        resumable=True,
        minimum=0,
    )
    decay_steps: int | None = recipe_only(
        None, "Length of the decay in steps [default: all after the warm-up; for wsd a fifth of the run].", minimum=0
    )
    final_learning_rate: float = recipe_only(
        0.1, "Learning rate at the end, as a fraction of the peak.", minimum=0, maximum=1
    )
    beta1: float = recipe_only(0.9, "Adam beta1 (first-moment decay).", minimum=0, maximum=0.9999)
    beta2: float = recipe_only(0.95, "Adam beta2 (second-moment decay).", minimum=0, maximum=0.99999)
    epsilon: float = recipe_only(1e-8, "Adam epsilon.", minimum=0)
    clip_norm: float = recipe_only(1.0, "Maximum global gradient norm; 0 = no clipping.", minimum=0)
    muon_learning_rate: float = recipe_only(0.02, "Muon's peak learning rate.", minimum=0)
    muon_momentum: float = recipe_only(0.95, "Muon's Nesterov momentum.", minimum=0, maximum=0.9999)
    gradient_checkpointing: bool = recipe_only(False, "Recompute activations in the backward pass to save memory.")

    @property
    def processes(self) -> int:
        return self.num_processes or 1


def refuse_too_many_processes(rows: int, processes: int, *, where: str, fix: str) -> None:
    """Raise UsageError if a step has fewer rows than there are processes."""
    if rows < processes:
        raise UsageError(f"{rows} sequences per step are too few for {processes} processes", where=where, fix=fix)


def config_path(name: str) -> Path:
    """Return the file for a shipped name or a path; raises UsageError with the nearest name."""
    shipped = {path.stem: path for path in (recipes_root() / "accelerate").glob("*.yaml")}
    path = shipped.get(name, Path(name).expanduser())
    if path.is_file():
        return path
    where = "--accelerate-config"
    raise UsageError(f"no such configuration or file: {name!r}", where=where, fix=suggest(name, shipped))
