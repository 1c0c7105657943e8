"""The options of `gptkit generate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gptkit.decoding.text_options import TextModelOptions
from gptkit.options import OutputOptions, option


@dataclass(frozen=True, kw_only=True)
class SourceOptions(OutputOptions):
    """Where the prompts, the model and the samples lie; of their own, so that the help names them first."""

    prompt: str | None = option(
        None, "Text to continue; - reads stdin; without it, unconditional text.", argument=True, metavar="PROMPT"
    )
    prompts: Path | None = option(
        None,
        'Many prompts: a .txt of one a line, or a .jsonl of {"prompt": ...}; rerun the command to resume.',
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
    """Generate text with a model: unconditional, from a prompt, from many, or in a dialogue."""

    # No field of this file bears on a text; what does is a field of DecodingOptions, by which samples files are hashed.
    interactive: bool = option(False, "Prompt interactively; !help lists the commands.")
    stream: bool | None = option(
        None,
        "Print the text as it is generated, not sample by sample [default: on a terminal].",
        panel="Run",
    )
