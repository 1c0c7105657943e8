"""GPT-1's tokenizer as a transformers tokenizer, with padding, added tokens and saving; its ids are OpenAI's own.

transformers' OpenAIGPTTokenizer has different ids: it drops newline tokens and accents, and splits words as BERT does.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizer

from gptkit.errors import InputError
from gptkit.system.limits import usable_processors
from gptkit.text.pieces import Piece
from gptkit.text.tokenizers.any_tokenizer import NEWLINE_TOKEN
from gptkit.text.tokenizers.files import Merge, read_merges, read_vocabulary
from gptkit.text.tokenizers.gpt1_encoding import UNKNOWN_ID, GPT1Encoder, Ids, encode_in_order, libraries

UNKNOWN_TOKEN = "<unk>"
END_OF_WORD = "</w>"


class GPT1Tokenizer(PreTrainedTokenizer):
    """A tokenizer with OpenAI's vocabulary and merges, given as objects or as the files that hold them.

    Like GPT-1 it has no start, end or padding token. It never recognizes special tokens in text, where `<unk>` is an
    ordinary word: add them by id. Decoding turns each `</w>` into a space; case and spacing are lost.
    UsageError if ftfy or spaCy is not installed.
    """

    vocab_files_names = {"vocab": "vocab.json", "merges": "merges.txt"}  # noqa: RUF012 - typed by the base class
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        vocab: Mapping[str, int] | str | Path,
        merges: Sequence[Merge] | str | Path,
        unk_token: str = UNKNOWN_TOKEN,
        split_special_tokens: bool = True,
        **kwargs: Any,
    ) -> None:
        libraries()
        self.vocabulary = dict(vocab) if isinstance(vocab, Mapping) else read_vocabulary(Path(vocab))
        self.merges = read_merges(Path(merges)) if isinstance(merges, str | Path) else list(merges)
        self._pieces = {id: piece for piece, id in self.vocabulary.items()}
        if NEWLINE_TOKEN not in self.vocabulary or self._pieces[UNKNOWN_ID] != UNKNOWN_TOKEN:
            message = f"not GPT-1's vocabulary: it needs {UNKNOWN_TOKEN!r} with id {UNKNOWN_ID}, and {NEWLINE_TOKEN!r}"
            where = None if isinstance(vocab, Mapping) else str(vocab)
            raise InputError(message, where=where, fix="use OpenAI's encoder_bpe_40000.json")
        super().__init__(  # type: ignore[no-untyped-call]
            unk_token=unk_token, split_special_tokens=split_special_tokens, **kwargs
        )

    @functools.cached_property
    def encoder(self) -> GPT1Encoder:
        """The encoder from text to ids."""
        return GPT1Encoder(self.vocabulary, self.merges)

    def encode_text(self, text: str) -> Ids:
        """Return the ids of a whole text, shape (tokens,)."""
        return self.encoder.encode(text)

    def encode_documents(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, Ids]]:
        """Yield (document, ids) in order; `pieces` may be cut anywhere."""
        return encode_in_order(self.encoder, pieces, workers=usable_processors())

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    def get_vocab(self) -> dict[str, int]:
        return {**self.vocabulary, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [self._pieces[id] for id in self.encoder.encode(text).tolist()]

    def _convert_token_to_id(self, token: str) -> int:
        return self.vocabulary.get(token, UNKNOWN_ID)

    def _convert_id_to_token(self, index: int) -> str:
        return self._pieces.get(index, UNKNOWN_TOKEN)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens).replace(END_OF_WORD, " ").removesuffix(" ")

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        vocab, merges = (Path(save_directory, prefix + name) for name in self.vocab_files_names.values())
        vocab.write_text(json.dumps(self.vocabulary, ensure_ascii=False) + "\n", encoding="utf-8", newline="")
        lines = ["#version: 0.2", *(f"{first} {second}" for first, second in self.merges)]
        merges.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
        return str(vocab), str(merges)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "encoder"}  # with spaCy: built when needed
