"""The special tokens that transformers' `generate` looks up in a model's configuration."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gptkit.text.tokenizers.any_tokenizer import separator_id


def set_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make `generate` start and stop where gptkit does: at the token that separates documents.

    It is bos and eos; pad is the tokenizer's own, if it has one. InputError when the tokenizer has no separator.
    """
    separator = separator_id(tokenizer)
    configs: list[Any] = [model.config, model.generation_config] if model.can_generate() else [model.config]
    for config in configs:
        config.bos_token_id = config.eos_token_id = separator
        config.pad_token_id = tokenizer.pad_token_id
