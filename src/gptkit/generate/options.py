"""The options of `gptkit generate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gptkit.decoding.text_options import TextModelOptions
from gptkit.options import ReadingOptions, option


@dataclass(frozen=True, kw_only=True)
class SourceOptions(ReadingOptions):
    """Options for prompts, model and samples; a base class of their own puts them first in the help."""

    prompt: str | None = option(
        None, "Text to continue; - reads stdin. Omit it for unconditional text.", argument=True, metavar="PROMPT"
    )
    prompts: Path | None = option(
        None,
        'A file of prompts, one per line: .txt, or .jsonl of {"prompt": ...}; rerun the command to resume.',
        metavar="FILE",
    )
    output: Path | None = option(
        None, "Where --prompts writes its samples [default: NAME.samples.jsonl beside it].", metavar="FILE"
    )
    model: str | None = option(
        None, "A model or run directory, or hf:NAME [default: the newest pretrain run].", short="-m", metavar="MODEL"
    )


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(TextModelOptions, SourceOptions):
    """Generate text with a model: unconditionally, from a prompt, from a file of prompts, or interactively."""

    # No option of this file affects a text: those that do belong in DecodingOptions, whose values samples files record.
    interactive: bool = option(False, "Prompt interactively; !help lists the commands.")
    stream: bool | None = option(
        None,
        "Print text as it is generated, not whole samples [default: on a terminal].",
        panel="Run",
    )
