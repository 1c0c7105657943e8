"""The options that every training run has; pretrain and finetune add their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gptkit.options import CompileChoice, DeviceName, OutputOptions, option, recipe_only

ScheduleName = Literal[
    "cosine", "linear", "constant", "wsd", "openai-cosine", "openai-linear", "openai-constant", "slanted"
]


OptimizerName = Literal["adamw", "muon", "openai-adam"]


PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


TrackerName = Literal["none", "tensorboard", "wandb", "trackio"]


SpikeRule = Literal["off", "skip"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(OutputOptions):
    """What pretrain and finetune share."""

    model: str | None = option(
        None,
        "A preset (gptkit recipes ls), a config.json, a model directory to go on from, or hf:NAME.",
        short="-m",
        metavar="MODEL",
    )
    out: Path | None = option(
        None, "Run directory [default: runs/<command>-<name>-<time>].", resumable=True, short="-o"
    )
    learning_rate: float = option(6e-4, "Peak learning rate, of AdamW's part where Muon has the matrices.", minimum=0)
    schedule: ScheduleName = option(
        "cosine",
        "Learning-rate schedule; wsd = warm-up, stable, decay; openai-* = GPT-1's own; slanted = ULMFiT's triangle.",
        panel="Advanced",
    )
    optimizer: OptimizerName = option(
        "adamw", "adamw, muon (matrices by Muon, the rest by AdamW), or GPT-1's own openai-adam."
    )
    weight_decay: float = option(0.1, "Decoupled weight decay of matrices and embeddings.", minimum=0, panel="Advanced")
    dropout: float | None = option(
        None,
        "Dropout of embeddings, attention and residuals [default: the model's own].",
        minimum=0,
        maximum=0.99,
        panel="Advanced",
    )
    seed: int = option(0, "Seed of weights, data order and dropout.", minimum=0, maximum=2**31 - 1)
    on_spike: SpikeRule = option(
        "off",
        "skip = leave a step out whose loss or gradient norm leaps far above those of the last 128.",
        panel="Advanced",
    )

    precision: PrecisionName = option(
        "auto", "Arithmetic of the matrix products; auto = bf16 where the processor has it.", panel="Speed"
    )
    compile: CompileChoice = option(
        "auto", "torch.compile; auto = where it pays for itself within the run.", panel="Advanced"
    )
    device: DeviceName = option("auto", "Where to compute.", panel="Advanced")
    micro_batch: int | None = option(
        None,
        "Most sequences of one forward pass [default: chosen by device and model].",
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
        None, "Steps between checkpoints [default: as eval_every].", panel="Advanced", resumable=True, minimum=1
    )
    resume: str = option(
        "auto",
        "auto = go on where --out stopped; never; or a run directory.",
        panel="Run",
        resumable=True,
        metavar="auto|never|DIR",
    )
    num_processes: int | None = option(
        None, "Processes: one for each GPU, or on this CPU [default: 1].", panel="Run", resumable=True, minimum=1
    )
    accelerate_config: str | None = option(
        None,
        "ddp = a copy of the model on each process, fsdp2 = a part of it; or a file of accelerate config.",
        panel="Advanced",
        resumable=True,
        metavar="ddp|fsdp2|FILE",
    )
    report_to: TrackerName = option("none", "Also send metrics to a tracker.", panel="Advanced", resumable=True)
    dry_run: bool = option(
        False, "Show what the run needs in memory, disk and time, and stop.", panel="Run", resumable=True
    )

    keep_checkpoints: int = recipe_only(2, "Newest checkpoints kept, besides any best one.", resumable=True, minimum=2)
    snapshots: int | None = recipe_only(
        None,
        "Copies of the weights alone kept along the run, evenly spaced [default: 8 below 50M parameters, else 0].",
        resumable=True,
        minimum=0,
    )
    decay_steps: int | None = recipe_only(
        None, "Steps of the decay [default: all after warm-up; a fifth of the run for wsd].", minimum=0
    )
    final_learning_rate: float = recipe_only(
        0.1, "Learning rate at the end, as a share of the peak.", minimum=0, maximum=1
    )
    beta1: float = recipe_only(0.9, "Adam's decay of the mean.", minimum=0, maximum=0.9999)
    beta2: float = recipe_only(0.95, "Adam's decay of the square.", minimum=0, maximum=0.99999)
    epsilon: float = recipe_only(1e-8, "Adam's epsilon.", minimum=0)
    clip_norm: float = recipe_only(1.0, "Largest global gradient norm; 0 = no clipping.", minimum=0)
    muon_learning_rate: float = recipe_only(0.02, "Muon's peak learning rate.", minimum=0)
    muon_momentum: float = recipe_only(0.95, "Muon's Nesterov momentum.", minimum=0, maximum=0.9999)
    gradient_checkpointing: bool = recipe_only(False, "Recompute activations in the backward pass to save memory.")

    @property
    def processes(self) -> int:
        return self.num_processes or 1
