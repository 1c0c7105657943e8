"""How an option is written, once: its name, type, default and help; and the options that every command has.

A dataclass of options is a command's signature: `parameters.py` turns its fields into flags, recipes set the same
names, and a run's config.yaml is written back from them. This file knows the standard library alone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

# In the order of the help. `Advanced` and `Recipe keys` are shown by --help-all alone.
Panel = Literal["Common", "Gate", "Analysis", "Speed", "Run", "Advanced", "Recipe keys"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
CompileChoice = Literal["auto", "on", "off"]


def option(
    default: Any,
    help: str,
    *,
    panel: Panel = "Common",
    resumable: bool = False,
    argument: bool = False,
    short: str | None = None,
    metavar: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """Return a dataclass field whose metadata is all that the command line needs to know.

    A `resumable` option may change when a run is resumed, any other may not. `minimum` and `maximum` are inclusive.
    """
    metadata = {
        "help": help,
        "panel": panel,
        "recipe_only": panel == "Recipe keys",
        "resumable": resumable,
        "argument": argument,
        "short": short,
        "metavar": metavar,
        "minimum": minimum,
        "maximum": maximum,
    }
    return field(default=default, metadata=metadata)


def recipe_only(default: Any, help: str, **more: Any) -> Any:
    """Return an `option` that only recipes set."""
    return option(default, help, panel="Recipe keys", **more)


def fields_of(options: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of an options class by name, in order of definition."""
    return {field.name: field for field in dataclasses.fields(options)}


def override(options: type, name: str, **changes: Any) -> Any:
    """Return an inherited field again, for a subclass to keep in its place with another default or metadata."""
    inherited = fields_of(options)[name]
    default = changes.pop("default", inherited.default)
    return field(default=default, metadata={**inherited.metadata, **changes})


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What every command shares."""

    json: bool = option(False, "Print one JSON object on stdout.", panel="Run", resumable=True)


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(OutputOptions):
    """Generate text with a model."""

    prompt: str | None = option(
        None, "Text to continue; - reads stdin; none = unconditional.", argument=True, metavar="PROMPT"
    )
    prompts: Path | None = option(
        None,
        'Many prompts: a .txt of one a line, or a .jsonl of {"prompt": ...}; again, it goes on where it stopped.',
        metavar="FILE",
    )
    output: Path | None = option(
        None, "Where --prompts writes its samples [default: NAME.samples.jsonl beside it].", metavar="FILE"
    )
    model: str | None = option(
        None, "A model or run directory, or hf:NAME [default: the newest pretrain run].", short="-m", metavar="MODEL"
    )
    max_new_tokens: int = option(200, "Tokens to add at most.", minimum=1)
    top_k: int = option(0, "Keep the k likeliest tokens; 0 = all.", minimum=0)
    top_p: float = option(1.0, "Keep the likeliest tokens that together reach p.", maximum=1)
    top_p_rule: Literal["hf", "openai"] = option(
        "hf",
        "The token that crosses p: hf keeps it (Holtzman et al.), openai drops it (GPT-2's sample.py).",
        panel="Advanced",
    )
    temperature: float = option(1.0, "Divide the logits by this; 0 = greedy.", minimum=0)
    greedy: bool = option(False, "Always take the likeliest token.")
    beams: int = option(
        1, "Beam search for the likeliest text as a whole, with this many beams.", minimum=1, maximum=1000
    )
    repetition_penalty: float = option(
        1.0, "Above 1 makes tokens that are there already less likely (CTRL paper, 4.1).", minimum=0.01
    )
    num_samples: int = option(1, "Samples per prompt.", minimum=1)
    seed: int = option(0, "Seed of the sampling.", minimum=0, maximum=2**31 - 1)
    stop: tuple[str, ...] = option(
        (), "End a text before this string; may be given again; \\n is a line break.", metavar="TEXT"
    )
    ignore_eos: bool = option(False, "Go on past the end of a document: its token is never drawn.", panel="Advanced")
    interactive: bool = option(False, "Ask for prompts one by one; !help lists the commands.")
    show_probs: bool = option(False, "Show each token's probability, rank and likeliest alternatives.")

    quantize: Literal["none", "int8", "int4"] = option("none", "The weights, made as they are read.", panel="Speed")
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto",
        "Arithmetic; auto = fp32, on a GPU bf16. In fp32 a sample's text is the same in any batch.",
        panel="Speed",
    )
    compile: CompileChoice = option(
        "auto", "The compiled decoder; auto = on a CPU with a C compiler, on a GPU for long jobs.", panel="Speed"
    )
    device: DeviceName = option("auto", "Where to compute.", panel="Advanced")

    stream: bool | None = option(
        None,
        "Show the text as it comes, or each sample when it is whole [default: as it comes on a terminal].",
        panel="Run",
    )

    template: str | None = recipe_only(
        None, "What the model reads, {prompt} in it standing for the prompt; prints answers alone."
    )
    sentences: int = recipe_only(
        0, "End a text after this many sentences: . ! or ? before white space; 0 = do not count.", minimum=0
    )
    batch_size: int | None = recipe_only(None, "Most samples decoded together [default: chosen by memory].", minimum=1)
