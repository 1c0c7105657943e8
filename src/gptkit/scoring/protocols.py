"""Protocols: what a language model is asked, what it answers, and exactly how a number is computed of that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gptkit.text.examples import Example

if TYPE_CHECKING:
    from gptkit.scoring.encoder import Encoder

TokenIds = NDArray[np.int64]
Column = NDArray[np.float64]


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


def windows(stream: TokenIds, *, window: int, stride: int) -> Iterator[tuple[int, Request]]:
    """Yield windows over a stream (1 + tokens,) whose first id is only seen; the others are scored, once and in order.

    Each is a request, after the place in the stream where its scored tokens begin. A window is `window` inputs. The
    first scores `window` tokens, a later one the next `stride`, or what is left, and reaches back as far as it can:
    they have window - stride + 1 tokens or more before them. With stride = window neighbours share nothing, but the
    last window is filled up with tokens that are scored already.
    """
    position = 1
    while position < len(stream):
        end = min(position + (window if position == 1 else stride), len(stream))
        begin = max(0, end - (window + 1))
        yield position, Request(stream[begin:end], position - begin)
        position = end


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


Answers = tuple[Answer, ...]  # to a group of requests


@dataclass(frozen=True, eq=False)
class Items:
    """The scores of a protocol's items, in the order of the data: all that measures and paired tests are made of.

    `ids` name the items (item,), each once; `columns` are arrays (item,), see measures.py; `groups` sort the items into
    named parts ("phenomenon" -> (item,)), whose measures stand beside those of all. `cut` counts the items of
    which the model did not see all, `impossible` the texts that could not be scored.
    """

    ids: tuple[str, ...]
    columns: Mapping[str, Column]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cut: int = 0
    impossible: int = 0


@dataclass(frozen=True)
class Published:
    """A figure that somebody reports for this protocol, in the measure's own unit."""

    model: str
    measure: str
    value: float
    source: str


@dataclass(frozen=True)
class Protocol:
    """Exactly how a number is computed.

    `about` says it in a sentence. `measures` are names of measures.MEASURES; the first `gated` of them are what a gate
    tests. `per_token`: numbers of two tokenizers cannot be compared. `chance`: what guessing gets of the first measure.
    `version` goes up when the same answers give other numbers than before: runs of two versions cannot be compared.
    """

    name: str
    about: str
    measures: tuple[str, ...]
    gated: int = 1
    published: tuple[Published, ...] = ()
    per_token: bool = False
    chance: float | None = None
    version: int = 1


@dataclass(frozen=True)
class ScoredProtocol(Protocol, ABC):
    """A protocol over log-probabilities: from examples to requests, and from the answers to items."""

    @abstractmethod
    def requests(self, examples: Sequence[Example], encoder: Encoder) -> list[Group]:
        """Return a group of requests for each example."""

    @abstractmethod
    def items(
        self, examples: Sequence[Example], groups: Sequence[Group], answers: Sequence[Answers], encoder: Encoder
    ) -> Items:
        """Return the items, given for each example its requests and their answers in the same order."""

    def settings(self, encoder: Encoder) -> Mapping[str, Any]:
        """Return what of the model or tokenizer enters the number: runs in which it differs cannot be compared."""
        return {}


@dataclass(frozen=True)
class Generated:
    """A text that the model wrote, without its prompt, and the mean probability (geometric) of its tokens.

    `confidence` is NaN unless the protocol's options ask for it (`show_probs`).
    """

    text: str
    confidence: float


@dataclass(frozen=True)
class GeneratedProtocol(Protocol):
    """A protocol over texts that the model writes after `prompt`; `options` are DecodingOptions by name.

    `items` cuts out of a text what `about` says before it scores that.
    """

    prompt: Callable[[Example], str] = field(kw_only=True)
    items: Callable[[Sequence[Example], Sequence[Generated]], Items] = field(kw_only=True)
    options: Mapping[str, Any] = field(kw_only=True, default_factory=dict)


@dataclass(frozen=True)
class RuleProtocol(Protocol):
    """What a rule gets that asks no model: a figure to see models beside."""

    items: Callable[[Sequence[Example]], Items] = field(kw_only=True)
