"""The options of `gptkit pretrain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gptkit.options import option, override, recipe_only
from gptkit.recipes import preset_name
from gptkit.text.tokenizers.any_tokenizer import TRAINED
from gptkit.training.options import TrainingOptions


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(TrainingOptions):
    """Train a GPT-1 or GPT-2 model from scratch on raw text, or continue from a model directory.

    Models that GPT is compared with are trained by --model lstm and --objective masked.
    """

    data: tuple[str, ...] = option(
        (),
        "Files, folders, globs of .txt, .txt.gz, .jsonl, .parquet; or hf:NAME[:CONFIG] [default: the embedded corpus].",
        argument=True,
        metavar="DATA",
    )
    encoding: str = override(TrainingOptions, "encoding", panel="Common")
    validation: str = option(
        "0.1", "A file, or the fraction of the text held out; a single document is cut in two.", metavar="FILE|FRACTION"
    )
    tokenizer: str | None = option(
        None,
        f"{TRAINED}, trained on the text; a directory; or hf:NAME [default: the model's own, else bpe:4096].",
        short="-t",
        metavar="TOKENIZER",
    )
    objective: Literal["causal", "masked"] = option(
        "causal", "Predict the next token, or masked tokens from both sides, as BERT does.", panel="Advanced"
    )
    steps: int = option(1000, "Optimizer updates.", minimum=1)
    warmup_steps: int = option(0, "Warm-up steps of the learning rate.", minimum=0, panel="Advanced")
    tokens_per_step: int = option(8192, "Tokens per update, over all micro-batches and processes.", minimum=1)
    sequence_length: int | None = option(None, "Tokens per block [default: the model's n_positions].", minimum=1)
    sample_tokens: int = recipe_only(
        64, "Tokens of the sample generated at each validation; 0 = none.", resumable=True, minimum=0
    )

    def __post_init__(self) -> None:
        if self.model is not None:
            object.__setattr__(self, "model", preset_name(self.model))
