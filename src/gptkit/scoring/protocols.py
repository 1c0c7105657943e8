"""Evaluation protocols: what a model is asked, what it answers, and how exactly its answers become a number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gptkit.text.examples import Example

if TYPE_CHECKING:
    from gptkit.scoring.encoder import Encoder

TokenIds = NDArray[np.int64]
Column = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Request:
    """A sequence (token,) whose tokens from `start` (at least 1) on are scored, each given all tokens before it.

    The first token of a text follows the document separator. A scorer sees n_positions + 1 tokens; longer requests are
    scored in windows. `cut`: the model does not see the whole text at once. `impossible` says why a text cannot be
    scored; such a request scores nothing. `characters` is the length of the scored text, without the space that joins
    it to its context.
    """

    ids: TokenIds
    start: int
    cut: bool = False
    impossible: str = ""
    characters: int = 0


def windows(stream: TokenIds, *, window: int, stride: int) -> Iterator[tuple[int, Request]]:
    """Yield windows of `window` inputs over a stream (1 + tokens,), as (where scoring begins, request).

    Every id but the first is scored once, in order. The first window scores `window` tokens; each later one scores the
    next `stride` tokens, or what is left, and reaches back as far as it can, so that scored tokens have at least
    window - stride + 1 tokens before them. With stride = window, windows do not overlap, except that the last one is
    filled up with tokens that were scored before.
    """
    position = 1
    while position < len(stream):
        end = min(position + (window if position == 1 else stride), len(stream))
        begin = max(0, end - (window + 1))
        yield position, Request(stream[begin:end], position - begin)
        position = end


Group = tuple[Request, ...]  # the requests of one example; their common prefix is computed once


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model says about a request's scored tokens, each array (scored,).

    log_probs: natural logarithms, from a softmax in fp32 over all rows of the head, even those of no token.
    top: the most likely token in each place. top_allowed: the same among tokens that are not banned.
    """

    log_probs: NDArray[np.float64]
    top: TokenIds
    top_allowed: TokenIds


Answers = tuple[Answer, ...]  # to the requests of a group


@dataclass(frozen=True, eq=False)
class Items:
    """The scores of a protocol's items, in the order of the data; measures and paired tests are computed from them.

    `ids` are unique names of the items (item,); `columns` are arrays (item,), see measures.py; `groups` assign the
    items to named parts ("phenomenon" -> (item,)), which are also measured separately. `cut` counts the items that the
    model did not see completely, `impossible` the texts that could not be scored. `undefined` says why measures, by
    name, are not defined for these texts.
    """

    ids: tuple[str, ...]
    columns: Mapping[str, Column]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cut: int = 0
    impossible: int = 0
    undefined: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """A figure published for this protocol, in the measure's own unit."""

    model: str
    measure: str
    value: float
    source: str


@dataclass(frozen=True)
class Protocol:
    """How exactly a number is computed.

    `about` describes it in a sentence. `measures` are names in measures.MEASURES; the gate tests the first `gated` of
    them. `per_token`: numbers of different tokenizers are not comparable. `chance`: the first measure of random
    guessing. `version` is raised when the same answers give different numbers than before: runs of different versions
    are not comparable. `masked`: whether it is for masked language models, which other protocols are not; None for
    both.
    """

    name: str
    about: str
    measures: tuple[str, ...]
    gated: int = 1
    published: tuple[Published, ...] = ()
    per_token: bool = False
    chance: float | None = None
    version: int = 1
    masked: bool | None = False


@dataclass(frozen=True)
class ScoredProtocol(Protocol, ABC):
    """A protocol on log-probabilities: makes requests from examples, and items from the answers.

    `scores_contexts`: the contexts of requests are scored by other requests.
    """

    scores_contexts: ClassVar[bool] = False

    @abstractmethod
    def requests(self, examples: Sequence[Example], encoder: Encoder) -> list[Group]:
        """Return a group of requests for each example."""

    @abstractmethod
    def items(
        self, examples: Sequence[Example], groups: Sequence[Group], answers: Sequence[Answers], encoder: Encoder
    ) -> Items:
        """Return the items, given each example's requests and the answers to them."""

    def settings(self, encoder: Encoder) -> Mapping[str, Any]:
        """Return the model's settings that affect the number: runs that differ in them are not comparable."""
        return {}


@dataclass(frozen=True)
class Generated:
    """A text that the model wrote, without its prompt, and the geometric mean of its tokens' probabilities.

    `confidence` is NaN unless the protocol's options ask for it (`show_probs`).
    """

    text: str
    confidence: float


@dataclass(frozen=True)
class GeneratedProtocol(Protocol):
    """A protocol on texts that the model writes after `prompt`; `options` are DecodingOptions by name.

    `items` extracts the answer from each text, as `about` says, and scores it.
    """

    prompt: Callable[[Example], str] = field(kw_only=True)
    items: Callable[[Sequence[Example], Sequence[Generated]], Items] = field(kw_only=True)
    options: Mapping[str, Any] = field(kw_only=True, default_factory=dict)


@dataclass(frozen=True)
class RuleProtocol(Protocol):
    """A baseline computed by a rule without a model, to compare models with."""

    items: Callable[[Sequence[Example]], Items] = field(kw_only=True)
