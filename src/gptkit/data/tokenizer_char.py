"""A tokenizer whose tokens are the characters of its training text, numbered as nanoGPT numbers them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from gptkit.data.char_encoding import CODE_POINTS, EACH_CHARACTER, code_points
from gptkit.data.separator import END_OF_TEXT
from gptkit.errors import InputError

UNKNOWN = "<unk>"


def train_char(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return the tokenizer of all characters in `texts`: sorted they are ids 0, 1, ...; END_OF_TEXT and UNKNOWN follow.

    UNKNOWN stands for characters that later texts hold and these do not. A model never sees it in training, so it makes
    no validation loss better, and no run fails on one odd character at the end of a book. InputError without text.
    """
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
