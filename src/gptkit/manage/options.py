"""The options of the small commands: env, tasks, tokenizer and runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gptkit.options import REQUIRED, OutputOptions, ReadingOptions, option
from gptkit.system.run_layout import RUNS
from gptkit.text.tokenizers.any_tokenizer import TRAINED


@dataclass(frozen=True, kw_only=True)
class EnvOptions(OutputOptions):
    """Show versions, processor, GPUs, compilers and folders."""


@dataclass(frozen=True, kw_only=True)
class TasksOptions(OutputOptions):
    """List the fine-tuning tasks with their format, metric, sizes and data source, and the protocols of eval."""


@dataclass(frozen=True, kw_only=True)
class TasksShowOptions(ReadingOptions):
    """Show an example of a task as the token sequences that a model reads, and which tokens are predicted.

    NAME/PROTOCOL shows what a protocol of eval scores.
    """

    task: str = option(
        REQUIRED, "A task, an evaluation or one of its protocols, or a task's YAML file.", argument=True, metavar="NAME"
    )
    data: str | None = option(None, "Folder with the task's files, or hf:NAME.", metavar="DATA")
    model: str | None = option(
        None, "Its tokenizer and length are used [default: the newest pretrain run].", short="-m", metavar="MODEL"
    )
    split: str | None = option(None, "The split to read [default: train].", metavar="SPLIT")
    index: int = option(0, "Which example, from 0.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class TokenizerTrainOptions(ReadingOptions):
    """Train a tokenizer on the text that pretrain would train on."""

    data: tuple[str, ...] = option(
        (), "Text to train on, as for pretrain [default: the embedded corpus].", argument=True, metavar="DATA"
    )
    validation: str = option(
        "0.1", "What pretrain holds out for validation; bpe:N is trained without it.", metavar="FILE|FRACTION"
    )
    tokenizer: str = option(
        "bpe:4096", f"{TRAINED}, for a byte-level BPE with N entries.", short="-t", metavar=TRAINED.replace(" or ", "|")
    )
    out: Path = option(Path("tokenizer"), "Directory to create; it may exist if it is empty.", short="-o")


@dataclass(frozen=True, kw_only=True)
class TokenizerCompareOptions(ReadingOptions):
    """Compare two tokenizers on a text: tokens per byte and Unicode word, shared entries, first differing id, speed.

    Each CJK character is a word (UAX #29).
    """

    first: str = option(
        REQUIRED, f"A tokenizer directory or hf:NAME; {TRAINED} trains one on the text.", argument=True, metavar="A"
    )
    second: str = option(
        REQUIRED, "The tokenizer to compare with, given in any of these forms.", argument=True, metavar="B"
    )
    data: tuple[str, ...] = option(
        (),
        "Text to compare on, as for pretrain [default: that of the run among A and B, else the embedded corpus].",
        argument=True,
        metavar="DATA",
    )
    megabytes: float = option(10.0, "Use at most this much of the text, in MB.", minimum=0.001)


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions(OutputOptions):
    """Options that choose a tokenizer; a base class of their own, as two commands have them."""

    model: str | None = option(
        None, "A model or run directory, or hf:NAME [default: the newest pretrain run].", short="-m", metavar="MODEL"
    )
    tokenizer: str | None = option(
        None, "A tokenizer directory or hf:NAME, instead of a model's.", short="-t", metavar="TOKENIZER"
    )


@dataclass(frozen=True, kw_only=True)
class TokenizerEncodeOptions(TokenizerOptions, ReadingOptions):
    """Show the tokens of a text, each with its id."""

    text: str = option(REQUIRED, "The text to encode; - reads stdin.", argument=True, metavar="TEXT")


@dataclass(frozen=True, kw_only=True)
class TokenizerDecodeOptions(TokenizerOptions):
    """Print the text of token ids."""

    ids: tuple[int, ...] = option(REQUIRED, "The ids, in order.", argument=True, metavar="ID", minimum=0)


@dataclass(frozen=True, kw_only=True)
class RunsListOptions(OutputOptions):
    """List the runs, newest first: what they train on, how far they got, best figure, size and age."""

    root: Path = option(RUNS, "Folder of the runs.", metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class RunsShowOptions(RunsListOptions):
    """Show one run: its options, figures, losses, saved weights, and the command that resumes or uses it."""

    run: str = option(REQUIRED, "A run: its name under --root, or its path.", argument=True, metavar="RUN")
    samples: bool = option(False, "Also generate a text with the weights of each saved step.")


@dataclass(frozen=True, kw_only=True)
class RunsCompareOptions(RunsListOptions):
    """Compare runs: the options in which they differ, their figures, and all losses in one picture."""

    runs: tuple[str, ...] = option(REQUIRED, "Names under --root, or paths.", argument=True, metavar="RUN")
    by: Literal["steps", "tokens", "seconds"] = option("steps", "Horizontal axis of the picture.")
    out: Path | None = option(
        None, "Picture to write; never overwrites [default: compare.png, or compare-2.png ...].", metavar="FILE.png"
    )


@dataclass(frozen=True, kw_only=True)
class RunsRemoveOptions(RunsListOptions):
    """Remove runs and everything in them; refuses runs that are running and whatever is not a run."""

    runs: tuple[str, ...] = option(REQUIRED, "Names under --root, or paths.", argument=True, metavar="RUN")
    yes: bool = option(False, "Do not ask for confirmation; required where stdin is not a terminal.", short="-y")


@dataclass(frozen=True, kw_only=True)
class RunsPruneOptions(RunsRemoveOptions):
    """Remove the checkpoints of finished runs; models and snapshots stay, but these runs cannot train any further."""

    runs: tuple[str, ...] = option(
        (), "Names under --root, or paths [default: all finished runs].", argument=True, metavar="RUN"
    )
