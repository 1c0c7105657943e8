"""The model directory of a run and its model card: README.md with the model's data, command and metrics."""

from __future__ import annotations

import copy
import json
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

import gptkit
from gptkit.model.loading import save_model
from gptkit.model.modeling_gpt import GPTPreTrainedModel
from gptkit.model_files import LSTM
from gptkit.report.text import code_block, escape_markdown
from gptkit.training.rules import Choices

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers")


def model_card(
    *,
    name: str,
    summary: str,  # one sentence: what the model is
    parameters: int,
    shape: str,
    data: str,
    data_sha256: str,
    licence: str,
    tokenizer: str,
    command: str,
    measured: Mapping[str, str],  # metric with its unit -> value
    versions: Mapping[str, str],
    task: Mapping[str, str] | None = None,  # what a fine-tuned model reads and answers
    sample: str | None = None,
    use: str = "gptkit generate --top-k 40 --model .",
    python: str | None = None,  # the same in Python
    limits: str = "A small language model repeats what its training text says and makes up the rest.",
) -> str:
    """Return a model card in Markdown, with every fact filled in.

    Text from data and file names is escaped: it shows as written, never as Markdown or HTML.
    """
    # No pipeline of transformers adds the tokens that a fine-tuned model reads.
    kind = {} if task else {"pipeline_tag": "text-generation"}
    about = {"library_name": "gptkit", **kind, "tags": ["gptkit"]}
    tables = {
        "Model": {"parameters": f"{parameters:,}", "shape": shape},
        "Data": {"text": data, "sha256": data_sha256, "licence": licence, "tokenizer": tokenizer},
        "Task": task,
        "Measured": measured,
    }
    parts = [
        "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in about.items()), "---"]),
        f"# {escape_markdown(name)}\n\n{escape_markdown(summary)}",
        *(f"## {title}\n\n{_table(rows)}" for title, rows in tables.items() if rows),
        "## How it was made\n\n" + code_block(command),
        "\n\n".join(["## Use", code_block(use), *([code_block(python, "python")] if python else [])]),
        "## Versions\n\n" + _table(versions),
    ]
    if sample is not None:
        parts.append("## A sample\n\n" + code_block(sample))
    parts.append(f"## Limits\n\n{limits}")
    return "\n\n".join(parts) + "\n"


def with_measured(card: str, measured: Mapping[str, str]) -> str:
    """Return a card with other measured figures; its other text stays."""
    return re.sub(r"(?<=\n## Measured\n\n).*?(?=\n\n## )", lambda _: _table(measured), card, count=1, flags=re.DOTALL)


def model_facts(model: GPTPreTrainedModel, choices: Choices) -> dict[str, Any]:
    """Return what a card says of the model's size, and of the versions and the hardware it was trained with."""
    config = model.config
    parts = f"{config.inner_width:,} units" if config.model_type == LSTM else f"{config.n_head} heads"
    shape = f"{config.n_layer} layers, {config.n_embd} wide, {parts}, {config.n_positions} positions"
    versions = {
        "gptkit": gptkit.__version__,
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        **{name: str(value) for name, value in choices.facts().items() if value is not None},
    }
    return {
        "parameters": model.num_parameters(),
        "shape": f"{shape}, {config.vocab_size:,} tokens",
        "versions": versions,
    }


def _table(rows: Mapping[str, str]) -> str:
    lines = [f"| {escape_markdown(name)} | {escape_markdown(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def write_start(directory: Path, model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write config.json and the tokenizer, which describe a model's weights, into an existing directory."""
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def write_model(directory: Path, model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: str) -> None:
    """Write weights, configuration, tokenizer and card into an empty directory."""
    save_model(model, directory)
    tokenizer.save_pretrained(directory)
    (directory / "README.md").write_text(card, encoding="utf-8")
