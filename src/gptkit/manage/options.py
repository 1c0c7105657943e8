"""The options of the small commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gptkit.options import OutputOptions, option


@dataclass(frozen=True, kw_only=True)
class TasksOptions(OutputOptions):
    """List the tasks to fine-tune on."""


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
        Path(), "The folder or the new file to copy to [default: here].", argument=True, metavar="DST"
    )


@dataclass(frozen=True, kw_only=True)
class EnvOptions(OutputOptions):
    """Show versions, processor, GPUs, compiler and folders."""


@dataclass(frozen=True, kw_only=True)
class TokenizerTrainOptions(OutputOptions):
    """Make the tokenizer that pretrain would make of the same text."""

    data: tuple[str, ...] = option(
        (), "Text to train on, as for pretrain. None = the embedded corpus.", argument=True, metavar="DATA"
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
        (), "Text to compare on, as for pretrain. None = the embedded corpus.", argument=True, metavar="DATA"
    )
    megabytes: float = option(10.0, "Compare on this much of the text at most.", minimum=0.001)
