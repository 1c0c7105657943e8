"""The options of `gptkit finetune`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gptkit.model_files import Features, Pooling
from gptkit.options import REQUIRED, option, override, recipe_only
from gptkit.training.options import OptimizerName, ScheduleName, TrainingOptions

PAPER_SEEDS = 3
GPT1_LM_COEF = 0.5
# Options that have no meaning for a linear head on a frozen model, and the value that leaves each out.
NOT_WITH_FEATURES: Mapping[str, Any] = {
    **{"head": "extract", "lm_coef": 0.0, "dropout": None, "layer_decay": 1.0, "unfreeze": "all"},
    **{"gradient_checkpointing": False, "study": "none"},
}


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(TrainingOptions):
    """Fine-tune a pre-trained model on a labelled task, with the language-model loss as an auxiliary objective.

    Defaults follow GPT-1; each option names its source. Gradients are clipped to a norm of 1 (GPT-1's train.py);
    dropout before the classifier is 0.1 (GPT-1 paper, section 4.1).
    """

    # Options of its own, in the order of the help.
    task: str = option(
        REQUIRED, "A task listed by gptkit tasks, or the YAML file of your own task.", metavar="NAME|FILE"
    )
    data: str | None = option(
        None,
        "Folder with the task's files, or with one folder per task; hf: = its hub data set. Demo tasks need none.",
        metavar="DIR|hf:[NAME[:CONFIG]]",
    )
    lm_coef: float = option(
        GPT1_LM_COEF, "Weight of the auxiliary language-model loss; 0 = off (GPT-1 paper, section 4.1).", minimum=0
    )
    epochs: int = option(3, "Passes over the training examples (GPT-1 paper, section 4.1).", minimum=1)
    batch_size: int = option(
        32, "Examples per update, over all micro-batches and processes (GPT-1 paper, section 4.1).", minimum=1
    )
    warmup_steps: float | None = option(
        None,
        "Warm-up steps of the learning rate [default: 0.2% of all steps (GPT-1 paper, section 4.1)].",
        minimum=0,
        panel="Advanced",
    )
    layer_decay: float = option(
        1.0,
        "Learning-rate factor per layer, from the top down; 0.38 = ULMFiT's (section 3.2).",
        minimum=0,
        maximum=1,
        panel="Advanced",
    )
    unfreeze: Literal["all", "gradual"] = option(
        "all",
        "gradual = only the head in epoch 1, then one more layer per epoch (ULMFiT, section 3.3).",
        panel="Advanced",
    )
    transfer_layers: str | None = option(
        None,
        "Keep the embeddings and first N blocks, reinitialize the rest; none = keep nothing [default: keep all].",
        metavar="none|N",
    )
    features: Features = option(
        "none",
        "Train only a linear head on the states of the frozen model, computed once: last = the last layer's, "
        "mix = a learnt mix of all layers' (ELMo, equation 1).",
        panel="Advanced",
    )
    head_learning_rate: float = option(
        1e-2, "Peak learning rate with --features, in place of --learning-rate.", minimum=0, panel="Advanced"
    )
    seeds: int = option(
        1, "Number of runs, with seeds SEED, SEED + 1, ...; the best on dev becomes model/.", resumable=True, minimum=1
    )
    study: Literal["none", "ablation", "paper"] = option(
        "none",
        "ablation = also run without the auxiliary loss, and without pre-training (GPT-1 paper, table 5), or without "
        "each part of the ulmfit recipe. paper = also an LSTM, frozen features and a masked model, over three seeds "
        "unless --seeds is above 1.",
    )
    predict: str | None = option(None, "Write predictions for this split, e.g. test.", resumable=True, metavar="SPLIT")
    classifier_dropout: float = recipe_only(
        0.1, "Dropout before the classifier (GPT-1 paper, section 4.1).", minimum=0, maximum=0.99
    )
    head: Pooling = recipe_only("extract", "concat = the classifier also reads mean and maximum (ULMFiT, section 3.3).")
    lm_epochs: int = recipe_only(0, "Epochs of language modelling on the texts first (ULMFiT, section 3.1).", minimum=0)
    lm_learning_rate: float = recipe_only(6.25e-5, "Peak learning rate of these epochs.", minimum=0)

    # Options of every training run: GPT-1's values, and what they count here.
    model: str | None = override(
        TrainingOptions, "model", help="A model or run directory, or hf:NAME [default: the newest pretrain run]."
    )
    learning_rate: float = override(
        TrainingOptions, "learning_rate", default=6.25e-5, help="Peak learning rate (GPT-1 paper, section 4.1)."
    )
    optimizer: OptimizerName = override(TrainingOptions, "optimizer", default="openai-adam")
    schedule: ScheduleName = override(
        TrainingOptions,
        "schedule",
        default="openai-linear",
        help="Learning-rate schedule; openai-linear = GPT-1's (GPT-1 paper, section 4.1), slanted = ULMFiT's triangle.",
    )
    weight_decay: float = override(
        TrainingOptions,
        "weight_decay",
        default=0.01,
        help="Decoupled weight decay of matrices and embeddings (GPT-1 paper, section 4.1).",
    )
    beta2: float = override(
        TrainingOptions, "beta2", default=0.999, help="Adam beta2 (second-moment decay; GPT-1's train.py)."
    )
    micro_batch: int | None = override(
        TrainingOptions, "micro_batch", help="Maximum examples per forward pass [default: chosen by length]."
    )
    eval_every: int | None = override(
        TrainingOptions, "eval_every", help="Steps between evaluations on dev [default: one epoch]."
    )

    def __post_init__(self) -> None:
        """Give the study of the paper three seeds; with frozen features, replace what is meant for the whole model."""
        if self.study == "paper" and self.seeds == 1:
            object.__setattr__(self, "seeds", PAPER_SEEDS)
        if self.features != "none":
            object.__setattr__(self, "learning_rate", self.head_learning_rate)
            object.__setattr__(self, "lm_coef", 0.0 if self.lm_coef == GPT1_LM_COEF else self.lm_coef)
            object.__setattr__(self, "precision", "fp32" if self.precision == "auto" else self.precision)
