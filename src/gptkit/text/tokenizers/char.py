"""A tokenizer whose tokens are characters: trained by noting which occur, encoded by a table of all code points."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from gptkit.errors import InputError
from gptkit.text.tokenizers.any_tokenizer import END_OF_TEXT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CODE_POINTS = 0x110000
EACH_CHARACTER = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
UNKNOWN = "<unk>"


def accepts(spec: str) -> bool:
    return spec == "char"


def train(spec: str, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return the tokenizer of all characters in `texts`: sorted they are ids 0, 1, ...; END_OF_TEXT and UNKNOWN follow.

    UNKNOWN stands for characters that later texts hold and these do not. A model never sees it in training, so it makes
    no validation loss better, and no run fails on one odd character at the end of a book. InputError without text.
    """
    from transformers import PreTrainedTokenizerFast  # late: it takes seconds, and encoding does without it

    occurs = np.zeros(CODE_POINTS, np.bool_)
    for text in texts:
        occurs[code_points(text)] = True
    characters = [chr(point) for point in np.flatnonzero(occurs)]
    if not characters:
        raise InputError("no text to train a tokenizer on", where="DATA", fix="name files with text")
    vocabulary = {token: id for id, token in enumerate([*characters, END_OF_TEXT, UNKNOWN])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = EACH_CHARACTER
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([END_OF_TEXT, UNKNOWN])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, unk_token=UNKNOWN
    )


def fast_encoder(tokenizer: Any, dtype: np.dtype[Any]) -> Callable[[str], NDArray[Any]] | None:
    """Return what encodes a text by look-up in a table of all code points, None for a tokenizer of another kind."""
    if not is_char(tokenizer):
        return None
    table = np.full(CODE_POINTS, tokenizer.unk_token_id, dtype)
    for token, id in tokenizer.get_vocab().items():
        if len(token) == 1:
            table[ord(token)] = id
    return lambda text: table[code_points(text)]


def is_char(tokenizer: Any) -> bool:
    """Tell whether this is a tokenizer of `train`, and its text splits at characters alone."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, models.WordLevel) or backend.normalizer is not None:
        return False
    if tokenizer.unk_token_id is None or backend.pre_tokenizer is None:  # its settings are not there
        return False
    state, expected = (json.loads(splits.__getstate__()) for splits in (backend.pre_tokenizer, EACH_CHARACTER))
    return state == expected and all(token.special for token in tokenizer.added_tokens_decoder.values())


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the Unicode code points of a text, shape (characters,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
