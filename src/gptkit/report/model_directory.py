"""A run's start/ and model/: configuration and tokenizer, and at its end the weights and the card."""

from __future__ import annotations

import copy
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from gptkit.model.loading import save_model
from gptkit.model.modeling_gpt import GPTPreTrainedModel
from gptkit.report.model_card import ModelCard


def write_start(directory: Path, model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write what describes the weights of a model, into a directory that exists."""
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def write_model(
    directory: Path, model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: ModelCard
) -> None:
    """Write the files into an empty directory."""
    save_model(model, directory)
    tokenizer.save_pretrained(directory)
    (directory / "README.md").write_text(card.as_markdown(), encoding="utf-8")
