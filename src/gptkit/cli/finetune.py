"""`gptkit finetune`, given `gptkit pretrain` to tune the language model with: no verb imports another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptkit.console import Console
from gptkit.finetune import command
from gptkit.finetune.options import FinetuneOptions
from gptkit.options import fields_of
from gptkit.pretrain.options import PretrainOptions
from gptkit.recipes import CONFIG, read_recipe
from gptkit.training.options import TrainingOptions

# Options of fine-tuning that say nothing of pre-training: what they count is something else there.
OWN = {"json", "encoding", "seed", "micro_batch", "eval_every", "save_every", "resume", "snapshots", "dry_run"}


def run(options: FinetuneOptions, console: Console) -> dict[str, Any]:
    """Fine-tune as the options say, and return what `--json` prints."""

    def pretrain(repeated: Path | None = None, **own: Any) -> dict[str, Any]:
        """Pre-train with the options of fine-tuning that both have, or with those of a run that is `repeated`."""
        from gptkit.pretrain.command import run as run_pretrain

        shared = {name: getattr(options, name) for name in fields_of(TrainingOptions).keys() - OWN}
        if repeated is not None:
            shared = read_recipe(repeated / CONFIG, PretrainOptions)
        return run_pretrain(PretrainOptions(**shared | own), console)

    return command.run(options, console, pretrain=pretrain)
