"""The interface that gptkit needs of a tokenizer, and the token that separates documents."""

from __future__ import annotations

from typing import Any, Protocol

from gptkit.errors import InputError

END_OF_TEXT = "<|endoftext|>"
NEWLINE_TOKEN = "\n</w>"  # GPT-1's, which no other tokenizer has
TRAINED = "char or bpe:N"  # the kinds of kinds.py, for help texts: those import no tokenizer


class AnyTokenizer(Protocol):
    """A tokenizer of transformers, or another with these members."""

    name_or_path: str

    @property
    def eos_token_id(self) -> Any: ...
    @property
    def unk_token_id(self) -> Any: ...
    @property
    def all_special_ids(self) -> list[int]: ...
    def __len__(self) -> int: ...
    def get_vocab(self) -> dict[str, int]: ...
    def convert_ids_to_tokens(self, ids: int) -> Any: ...
    def decode(self, token_ids: Any, *, clean_up_tokenization_spaces: bool = ...) -> Any: ...


def separator_id(tokenizer: AnyTokenizer) -> int:
    """Return the id of the token that separates documents and starts unconditional text.

    It is GPT-1's newline token if the vocabulary has it, else `<|endoftext|>`, else the tokenizer's eos_token.
    """
    vocabulary = tokenizer.get_vocab()
    found = vocabulary.get(NEWLINE_TOKEN, vocabulary.get(END_OF_TEXT, tokenizer.eos_token_id))
    if found is None:
        message = f"the tokenizer has neither {END_OF_TEXT} nor an eos_token to separate documents"
        fix = 'name its end token in tokenizer_config.json, such as "eos_token": "[SEP]"'
        raise InputError(message, where=tokenizer.name_or_path or "tokenizer", fix=fix)
    return int(found)


def unknown_id(tokenizer: AnyTokenizer) -> int | None:
    """Return the id that stands for text that the tokenizer does not know, None if it knows every text."""
    unknown: int | None = tokenizer.unk_token_id
    return None if unknown == tokenizer.eos_token_id else unknown  # GPT-2's unk_token is its separator


def unknown_note(what: str, unknown: int, tokens: int) -> str:
    """Return the warning about a text with tokens that stand for what the tokenizer does not know."""
    share = f"{unknown:,} of {tokens:,} tokens ({100 * unknown / tokens:.3g}%) are unknown to the tokenizer"
    return f"{what}: {share}; a byte-level one knows every text: gptkit pretrain --tokenizer bpe:4096"


def id_out_of_range(tokenizer: AnyTokenizer) -> tuple[str, int] | None:
    """Return the entry (token, id) with the largest id if it is not below the number of entries, else None."""
    token, id = max(tokenizer.get_vocab().items(), key=lambda item: item[1], default=("", -1))
    return (token, id) if id >= len(tokenizer) else None
