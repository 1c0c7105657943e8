"""Trained tokenizers in the cache: the same text and the same char or bpe:N are not trained on twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from transformers import PreTrainedTokenizerFast

from gptkit.system.cache import cache_path, cached_file
from gptkit.system.files import HashedFile
from gptkit.text.tokenizers.loading import train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from gptkit.text.corpora import TextPart

FORMAT = 1


def cached_tokenizer(spec: str, text: TextPart) -> tuple[PreTrainedTokenizerBase, bool]:
    """Return the tokenizer that char or bpe:N makes of a text, and whether it came from the cache.

    Its key is the sha256 of text, spec and library version. Errors are those of `cached_file`.
    """
    path = cache_path("tokenizers", ".bin", FORMAT, text.key, spec, tokenizers.__version__)
    was_cached = True

    def write(file: HashedFile) -> dict[str, Any]:
        nonlocal was_cached
        was_cached = False
        trained = train_tokenizer(spec, (piece.text for piece in text.pieces()))
        content = [trained.backend_tokenizer.to_str(), trained.special_tokens_map]
        file.write(json.dumps(content).encode())
        return {"spec": spec}

    cached_file(path, write, need=lambda file: file.size)
    return _read(path), was_cached  # even one just trained is read back, so that both ways give the same


def _read(path: Path) -> PreTrainedTokenizerBase:
    backend, special_tokens = json.loads(path.read_bytes())
    return PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_str(backend), **special_tokens)
