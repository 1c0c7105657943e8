"""The token that stands between documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.errors import InputError
from gptkit.text.tokenizers.gpt1_rules import NEWLINE_TOKEN

if TYPE_CHECKING:
    from gptkit.text.tokenizers.light import AnyTokenizer

END_OF_TEXT = "<|endoftext|>"


def separator_id(tokenizer: AnyTokenizer) -> int:
    """Return the id that stands between documents and starts unconditional text.

    It is GPT-1's newline token, which no other tokenizer has, or `<|endoftext|>`, or else the end-of-text token that
    the tokenizer declares.
    """
    vocabulary = tokenizer.get_vocab()
    found = vocabulary.get(NEWLINE_TOKEN, vocabulary.get(END_OF_TEXT, tokenizer.eos_token_id))
    if found is None:
        message = f"the tokenizer has neither {END_OF_TEXT} nor an eos_token to stand between documents"
        raise InputError(message, where=tokenizer.name_or_path or "tokenizer", fix="use another tokenizer")
    return int(found)
