"""The options of `gptkit convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gptkit.convert.formats import EXPORTS_HELP, READS, DtypeName, ExportName
from gptkit.options import REQUIRED, OutputOptions, option


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(OutputOptions):
    """Convert a model's weights from or to another format."""

    source: str = option(
        REQUIRED,
        f"A model: {READS}.",
        argument=True,
        metavar="SRC",
    )
    destination: Path = option(
        REQUIRED,
        "Directory to create; it may exist if it is empty. A name in .gguf or .bin is that file alone.",
        argument=True,
        metavar="DST",
    )
    to: ExportName = option("gptkit", EXPORTS_HELP)
    dtype: DtypeName | None = option(
        None, "Number format of the written weights [default: the source's own, or f32 if the format has no such one]."
    )
    adapter: Path | None = option(
        None, "LoRA adapter to merge into the weights: a directory that PEFT saved.", metavar="DIR"
    )
    tokenizer: str | None = option(
        None,
        "Tokenizer to save with the weights: a directory or hf:NAME [default: the source's own].",
        short="-t",
        metavar="DIR|hf:NAME",
    )
