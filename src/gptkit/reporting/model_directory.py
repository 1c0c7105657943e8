"""A run's model/: weights, configuration, tokenizer and card."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from gptkit.model.interop import write_gptkit
from gptkit.model.modeling_gpt import GPTPreTrainedModel
from gptkit.reporting.model_card import ModelCard


def write_model(
    directory: Path, model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: ModelCard
) -> None:
    """Write the files into an empty directory."""
    write_gptkit(model, directory)
    tokenizer.save_pretrained(directory)
    (directory / "README.md").write_text(card.as_markdown(), encoding="utf-8")
