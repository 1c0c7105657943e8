"""What a language model is asked: token sequences with a part that is scored, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Request:
    """A sequence (token,); tokens from `start` on (1 or more) are scored, given all before.

    A text's first token needs something before it: the separator of documents. A scorer sees n_positions + 1 tokens;
    more than those are scored in windows. `cut`: the model does not see all of the text at once. `impossible` says why
    a text cannot be scored; its request scores nothing. `characters` is the length of a choice, where one is scored,
    without the space that joins it to its context.
    """

    ids: TokenIds
    start: int
    cut: bool = False
    impossible: str = ""
    characters: int = 0


Group = tuple[Request, ...]  # requests of one example: what they begin with alike is computed once


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model says of a request's scored tokens, each array (scored,).

    log_probs: natural logarithms, from a softmax in fp32 over the tokenizer's entries and the model's other rows alike.
    top: the likeliest token at each place. top_allowed: the same but for banned tokens; `top` where none is banned.
    """

    log_probs: NDArray[np.float64]
    top: TokenIds
    top_allowed: TokenIds
