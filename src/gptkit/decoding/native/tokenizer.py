"""Read as much of a tokenizer.json as generation needs, without transformers, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders

from gptkit.errors import InputError
from gptkit.system.reading import LARGEST_JSON, require_regular
from gptkit.text.tokenizers.any_tokenizer import END_OF_TEXT, NEWLINE_TOKEN, id_out_of_range
from gptkit.text.tokenizers.files import LAYOUTS, find_tokenizer, saved_config

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
ADDED_TOKENS = "added_tokens_decoder"
NO_EXTRA_TOKENS = ("additional_special_tokens", "extra_special_tokens")
# Settings of tokenizer_config.json that affect neither the ids of plain text nor the text of ids.
IDLE_SETTINGS = frozenset(
    {
        *("add_bos_token", "add_eos_token", "add_prefix_space", "backend", "clean_up_tokenization_spaces", "errors"),
        *("is_local", "local_files_only", "model_max_length", "name_or_path", "padding_side", "tokenizer_class"),
        *("truncation_side", "chat_template", "do_lower_case", "max_len", "strip_accents", "tokenize_chinese_chars"),
    }
)
OLD_FILES = ("special_tokens_map.json", "added_tokens.json")  # read if tokenizer_config.json lists no added tokens
LARGEST = 100_000  # entries, beyond which transformers looks for faults of certain tokenizers and repairs them


class LightTokenizer:
    """The methods of `tokenizer_in`'s tokenizers that generation calls, with the same results."""

    encodes_plain_text = True  # the backend neither pads nor truncates, nor parses special tokens in a text

    def __init__(self, backend: Tokenizer, special_tokens: Mapping[str, str], name_or_path: str) -> None:
        self.backend_tokenizer = backend
        backend.encode_special_tokens = True  # as ordinary text
        self.name_or_path = name_or_path
        self._vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        self._special_ids: dict[str, Any] = {role: backend.token_to_id(token) for role, token in special_tokens.items()}

    @property
    def eos_token_id(self) -> int | None:
        return self._special_ids.get("eos_token")

    @property
    def unk_token_id(self) -> int | None:
        return self._special_ids.get("unk_token")

    @property
    def all_special_ids(self) -> list[int]:
        return sorted(set(self._special_ids.values()))

    def get_vocab(self) -> dict[str, int]:
        return self._vocabulary

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size(with_added_tokens=True))

    def convert_ids_to_tokens(self, ids: int) -> str | None:
        token: str | None = self.backend_tokenizer.id_to_token(ids)
        return token

    def decode(self, token_ids: Sequence[int], *, clean_up_tokenization_spaces: bool = False) -> str:
        """Return the text of ids, including special tokens; `clean_up_tokenization_spaces` is not supported."""
        if clean_up_tokenization_spaces:
            raise ValueError("clean_up_tokenization_spaces is not supported")
        return str(self.backend_tokenizer.decode(list(token_ids), skip_special_tokens=False))


def read_tokenizer(directory: Path) -> LightTokenizer | None:
    """Return the tokenizer from the tokenizer.json of a run or model directory.

    None for other layouts, for GPT-1's, and for a file that is damaged or has settings that only transformers
    understands: then `tokenizer_in` reads it, or says what is wrong.
    """
    try:
        folder, layout = find_tokenizer(directory)
        config = saved_config(folder)
        if layout != LAYOUTS[0] or require_regular(folder / layout[0]) > LARGEST_JSON:
            return None
    except InputError:
        return None
    try:
        backend = Tokenizer.from_file(str(folder / layout[0]))
    except Exception:  # tokenizers raises no other kind
        return None
    special_tokens = {role: config[role] for role in SPECIAL_TOKENS if config.get(role) is not None}
    if "eos_token" not in special_tokens and backend.token_to_id(END_OF_TEXT) is not None:  # GPT-2's config omits it
        special_tokens |= {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    if not _is_understood(backend, special_tokens.values(), config, folder):
        return None
    tokenizer = LightTokenizer(backend, special_tokens, str(folder))
    return None if id_out_of_range(tokenizer) else tokenizer


def _is_understood(backend: Tokenizer, named: Collection[Any], config: Mapping[str, Any], folder: Path) -> bool:
    """Return whether transformers would load this tokenizer unchanged and use it as the file says."""
    is_gpt1 = backend.token_to_id(NEWLINE_TOKEN) is not None
    is_bert = isinstance(backend.decoder, decoders.WordPiece)
    if is_gpt1 or is_bert or backend.get_vocab_size() > LARGEST:
        return False
    # Unigram has no such attribute, but may have such a token; byte-level BPE needs none.
    is_unknown_unnamed = getattr(backend.model, "unk_token", True) and config.get("unk_token") is None
    if is_unknown_unnamed or backend.padding is not None or backend.truncation is not None:
        return False
    decoder = backend.get_added_tokens_decoder()
    special = {token.content for token in decoder.values() if token.special}
    if not all(isinstance(token, str) and token in special for token in named):
        return False
    if ADDED_TOKENS not in config and any((folder / name).exists() for name in OLD_FILES):
        return False
    if any(config.get(name) for name in NO_EXTRA_TOKENS):
        return False
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    added = {str(id): {flag: getattr(token, flag) for flag in flags} for id, token in decoder.items()}
    known = {*IDLE_SETTINGS, *SPECIAL_TOKENS, *NO_EXTRA_TOKENS, ADDED_TOKENS}
    return config.keys() <= known and config.get(ADDED_TOKENS, added) == added
