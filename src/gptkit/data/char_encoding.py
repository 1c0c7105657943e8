"""Text to the ids of a tokenizer whose tokens are characters, by a table of all code points."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, models, pre_tokenizers

CODE_POINTS = 0x110000
EACH_CHARACTER = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the Unicode code points of a text, shape (characters,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def is_char(tokenizer: Any) -> bool:
    """Tell whether this is a tokenizer of `train_char`, and its text splits at characters alone."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, models.WordLevel) or backend.normalizer is not None:
        return False
    if tokenizer.unk_token_id is None:  # its settings are not there
        return False
    splits = backend.pre_tokenizer is not None and _state(backend.pre_tokenizer) == _state(EACH_CHARACTER)
    return splits and all(token.special for token in tokenizer.added_tokens_decoder.values())


def char_encoder(tokenizer: Any, dtype: np.dtype[Any]) -> Callable[[str], NDArray[Any]]:
    """Return what encodes a text by look-up in a table of all code points, far faster than the backend."""
    table = np.full(CODE_POINTS, tokenizer.unk_token_id, dtype)
    for token, id in tokenizer.get_vocab().items():
        if len(token) == 1:
            table[ord(token)] = id
    return lambda text: table[code_points(text)]


def _state(pre_tokenizer: Any) -> Any:
    return json.loads(pre_tokenizer.__getstate__())
