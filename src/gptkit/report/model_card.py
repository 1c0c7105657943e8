"""The README.md beside a model's weights: what it is, from which data and command, how it measures."""

from __future__ import annotations

import html
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import gptkit
from gptkit.report.text import clean_lines, one_line

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")
_NUMBERED = re.compile(r"^(\d+)(\.)(?=\s|$)")  # would begin a list
_ADDRESS = re.compile(r"(?i)\b(https?|ftp|www)(:(?=//)|(?<=www)\.)")  # would become a link
PACKAGES = ("torch", "transformers", "accelerate", "tokenizers")


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The facts of a card; every one is known when a run ends, so none is left open."""

    name: str
    summary: str  # one sentence: what the model is
    parameters: int
    shape: str
    data: str
    data_sha256: str
    licence: str
    tokenizer: str
    command: str
    measured: Mapping[str, str]  # figure -> value with its unit
    versions: Mapping[str, str]
    task: Mapping[str, str] = field(default_factory=dict)  # what a fine-tuned model reads and answers
    sample: str | None = None
    kind: str = "text-generation"  # the hub's name for what the model does
    use: str = 'gptkit generate "Once upon a time" --model . --top-k 40'
    limits: str = "A small language model repeats what its text says and makes up the rest."

    def as_markdown(self) -> str:
        """Return the card; whatever comes from data or file names is shown as code, never read as Markdown."""
        parts = [
            _front_matter(self.kind),
            f"# {plain(self.name)}\n\n{plain(self.summary)}",
            "## Model\n\n" + _table([("parameters", f"{self.parameters:,}"), ("shape", self.shape)]),
            "## Data\n\n"
            + _table(
                [
                    ("text", self.data),
                    ("sha256", self.data_sha256),
                    ("licence", self.licence),
                    ("tokenizer", self.tokenizer),
                ]
            ),
            *(["## Task\n\n" + _table(list(self.task.items()))] if self.task else []),
            "## Measured\n\n" + _table(list(self.measured.items())),
            "## How it was made\n\n" + fenced(self.command),
            "## Use\n\n" + fenced(self.use),
            "## Versions\n\n" + _table(list(self.versions.items())),
        ]
        if self.sample is not None:
            parts.append("## A sample\n\n" + fenced(self.sample))
        parts.append(f"## Limits\n\n{self.limits}")
        return "\n\n".join(parts) + "\n"


def shape_of(config: Any) -> str:
    """Return a GPTConfig's sizes in words."""
    return (
        f"{config.n_layer} layers, {config.n_embd} wide, {config.n_head} heads, {config.n_positions} positions, "
        f"{config.vocab_size:,} tokens"
    )


def made_with(choices: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions that a model was made with, and what its run chose: precision, compile, threads, device."""
    return {
        "gptkit": gptkit.__version__,
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        **{name: str(value) for name, value in choices.items()},
    }


def plain(text: str) -> str:
    """Return text with everything escaped that Markdown or HTML would read, addresses too, on one line."""
    escaped = _SPECIAL.sub(r"\\\1", html.escape(one_line(text), quote=False))
    return _ADDRESS.sub(r"\1\\\2", _NUMBERED.sub(r"\1\\\2", escaped))


def fenced(text: str) -> str:
    """Return text as a code block that its own backticks cannot close."""
    text = clean_lines(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _front_matter(kind: str) -> str:
    facts = {"library_name": "gptkit", "pipeline_tag": kind, "tags": ["gptkit"]}
    return "---\n" + "\n".join(f"{name}: {json.dumps(value)}" for name, value in facts.items()) + "\n---"


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {plain(name)} | {plain(value)} |" for name, value in rows)])
