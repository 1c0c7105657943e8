"""The options of `gptkit inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gptkit.options import REQUIRED, DeviceName, ReadingOptions, option


@dataclass(frozen=True, kw_only=True)
class InspectOptions(ReadingOptions):
    """Show what a model computes on a text: attention, each token's path, what wrote each prediction, and the loss.

    Writes a self-contained HTML page, and the exact numbers beside it (.safetensors).
    """

    text: tuple[str, ...] = option(
        REQUIRED,
        "A text, or the fields of a fine-tuned model's format in order, choices last; - reads stdin.",
        argument=True,
        metavar="TEXT",
    )
    model: str | None = option(
        None, "A model or run directory, or hf:NAME [default: the newest pretrain run].", short="-m", metavar="MODEL"
    )
    out: Path = option(Path("inspect.html"), "The page to write.", short="-o", metavar="FILE.html")
    overwrite: bool = option(False, "Replace an existing page.")
    head: str | None = option(
        None, "The head to work through by hand: layer.head, from 0 [default: the clearest].", metavar="L.H"
    )
    knock_out: bool | None = option(
        None,
        "Compute the loss without each head, attention and MLP [default: if two cores take at most 5 s].",
    )
    max_tokens: int = option(128, "Show at most this many tokens; the page grows with their square.", minimum=8)
    checkpoints: Path | None = option(
        None, "Show how the weights of this pretrain run came to read the text; the model is the run's.", metavar="RUN"
    )
    live: bool = option(True, "Let a small model run inside the page, on any text.")
    device: DeviceName = option("auto", "Device; auto = a GPU if there is one.", panel="Speed")
