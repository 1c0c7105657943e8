"""The proof of a conversion: another program reads what was written and must compute what our model computes.

text -> ids of the whole -> windows of ids -> logits, and their NLL -> greedy continuations of a few prompts

Each program is a `Peer`, ours too. `observe` asks one of them everything, so that only one holds weights at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import GptkitError, InputError
from gptkit.text.embedded import embedded_topics

Logits = NDArray[np.float32]  # (position, vocab); of a classifier (1, label), for the whole sequence

TEXT_BYTES = 100_000
CHUNK = 10_000  # characters of English between two blocks of UNUSUAL, of which the first comes after a fifth of that
MOST_TOKENS = 4096  # on which the NLL is measured
MOST_WINDOWS = 32
WORK = 3 * 10**11  # parameters x tokens: larger models are asked about fewer tokens, but always about a full window
KEPT_ROWS, KEPT_WINDOWS = 64, 4  # logits to hold until they are compared: 51 MB with GPT-2's vocabulary
MOST_PROMPTS, PROMPT, CONTINUATION = 3, 16, 24  # tokens, of each
LARGEST_DIFFERENCE = 1e-3  # of f32 logits; a hundred-thousandth of the largest logit where that is more
TIE = 1e-4  # two tokens whose logits differ by less may change places
# What a dtype may cost, in nats per token: more than any model lost by rounding, less than a wrong layout costs.
LARGEST_COST = {"f32": 1e-3, "f16": 0.02, "bf16": 0.05, "q8_0": 0.05, "int8": 0.2, "q4_0": 0.5}

UNUSUAL = """\
Emoji: \N{GRINNING FACE} \N{WOMAN}\u200d\N{ROCKET} \N{WAVING HAND SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-5} \
\N{HEAVY BLACK HEART}\ufe0f \N{REGIONAL INDICATOR SYMBOL LETTER J}\N{REGIONAL INDICATOR SYMBOL LETTER P}
Chinese: 今天天气很好，我们去公园吧。 Japanese: 日本語の文章、カタカナも。 Korean: 한국어 문장입니다.
Windows line ends:\r\nsecond line\r\n\r\nafter an empty one\r\n
  leading spaces,\ttabs\t\t, trailing spaces   \n\n\n
It's what they've said: we'll go, I'd stay, DON'T! 3.14159 1,000,000 v2.0-rc1 {[(<x_y>)]} ... --flag="a\\b"
Accents: naïve café Zürich; decomposed: e\u0301 o\u0308; Greek: λόγος; Russian: слово; Hebrew: שלום; Arabic: مرحبا;
no-break\u00a0space, zero\u200bwidth, ideographic\u3000space, \N{MATHEMATICAL SCRIPT CAPITAL A} \ufb01
"""


class Peer(Protocol):
    """A program that has read a model, and a tokenizer if there is one.

    For a classifier, `encode` returns the whole sequence with its markers, and `greedy` is never called.
    """

    name: str
    version: str

    def encode(self, text: str) -> list[int] | None:
        """Return the ids of a whole text, without tokens that stand for its ends; None if it has no tokenizer."""

    def logits(self, ids: Sequence[int]) -> Logits:
        """Return the logits after each of at most n_positions ids."""

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Return the `count` tokens that follow `ids` if each is the most likely one; the end of a text is no end."""


@dataclass(frozen=True)
class Questions:
    """What each program is asked: the ids of a text, logits over windows of ids, continuations of prompts."""

    text: str | None  # None: there is no tokenizer
    windows: list[list[int]]
    prompts: list[list[int]]
    continuation: int  # tokens


@dataclass(frozen=True)
class Answers:
    """What a program answered; `gaps` (prompt, token) are by how much each token of `texts` beat the second."""

    program: str
    ids: list[int] | None
    logits: list[Logits]  # some rows of the first windows
    nll: float | None  # nats per token
    texts: list[list[int]]
    gaps: list[list[float]]


@dataclass(frozen=True)
class Proof:
    """How far two programs agree, None where there was nothing to compare. `peer` is the other program's name."""

    peer: str | None = None
    max_logit_difference: float | None = None
    nll_difference: float | None = None
    tokenizer_ids_equal: bool | None = None
    greedy_equal: bool | None = None


def proof_text() -> str:
    """Return about 100 KB of English with emoji, Chinese, Japanese, line ends of Windows and the like between."""
    english = "\n\n".join(embedded_topics())
    places = [0, CHUNK // 5, *range(CHUNK, TEXT_BYTES + 1, CHUNK)]
    parts = [english[start:end] for start, end in pairwise(places)]
    return UNUSUAL.join(parts)


def language_questions(
    ids: Sequence[int] | None, text: str | None, *, n_positions: int, vocab_size: int, parameters: int
) -> Questions:
    """Return the questions for a language model; without a tokenizer, random ids take the place of a text's."""
    tokens = min(MOST_TOKENS, n_positions * MOST_WINDOWS, max(n_positions, WORK // parameters))
    if ids is None:
        ids = np.random.default_rng(0).integers(vocab_size, size=tokens).tolist()
    asked = list(ids[:tokens])
    windows = [asked[start : start + n_positions] for start in range(0, len(asked), n_positions)]
    prompt = max(1, min(PROMPT, n_positions // 2))
    starts = range(0, max(1, len(asked) - prompt), max(1, len(asked) // 4))
    continuation = min(CONTINUATION, n_positions - prompt)
    most = 1 if WORK // parameters < MOST_TOKENS else MOST_PROMPTS
    prompts = [asked[start : start + prompt] for start in starts][:most] if continuation else []
    return Questions(text, windows, prompts, continuation)


def classifier_questions(
    ids: Sequence[int] | None, text: str | None, *, markers: tuple[int, int], n_positions: int, vocab_size: int
) -> Questions:
    """Return the questions for a classifier: texts of one token to as many as fit between the markers."""
    start, extract = markers
    body = np.random.default_rng(0).integers(vocab_size, size=MOST_TOKENS).tolist() if ids is None else list(ids)
    lengths = sorted({1, 2, 7, (n_positions - 2) // 2, n_positions - 2} & set(range(1, n_positions - 1)))
    places = [(length, offset) for length in lengths for offset in (0, len(body) // 2)]
    windows = [[start, *body[offset : offset + length], extract] for length, offset in places]
    return Questions(text, windows, [], 0)


def observe(peer: Peer, questions: Questions, *, with_gaps: bool = False) -> Answers:
    """Return a program's answers; `with_gaps` for the one that says what a tie is."""
    ids = None if questions.text is None else peer.encode(questions.text)
    kept, nll, predicted = [], 0.0, 0
    for number, window in enumerate(questions.windows):
        logits = peer.logits(window)  # (position, vocab), or (1, label)
        if number < KEPT_WINDOWS or len(logits) == 1:
            rows = np.unique(np.linspace(0, len(logits) - 1, KEPT_ROWS).round().astype(int))
            kept.append(logits[rows].astype(np.float32))
        if len(logits) == len(window) > 1:
            nll += summed_nll(logits[: len(window) - 1], window[1:])
            predicted += len(window) - 1
    texts = [list(peer.greedy(prompt, questions.continuation)) for prompt in questions.prompts]
    asked = zip(questions.prompts, texts, strict=True) if with_gaps else ()
    gaps = [_gaps(peer.logits([*prompt, *text][:-1])[len(prompt) - 1 :]) for prompt, text in asked]
    return Answers(f"{peer.name} {peer.version}", ids, kept, nll / predicted if predicted else None, texts, gaps)


def summed_nll(logits: Logits, targets: Sequence[int]) -> float:
    """Return the summed negative log-likelihood in nats of `targets` (position,) under logits (position, vocab)."""
    total = 0.0
    for start in range(0, len(targets), KEPT_ROWS):  # few rows at a time, as they are widened
        rows = logits[start : start + KEPT_ROWS].astype(np.float64)
        rows -= rows.max(axis=1, keepdims=True)
        chosen = rows[np.arange(len(rows)), targets[start : start + KEPT_ROWS]]
        total += float((np.log(np.exp(rows).sum(axis=1)) - chosen).sum())
    return total


def _gaps(logits: Logits) -> list[float]:
    """Return by how much the largest logit exceeds the second at each position."""
    if logits.shape[1] == 1:
        return [math.inf] * len(logits)
    first, second = (-np.partition(-logits, 1, axis=1)[:, :2]).T
    return [float(gap) for gap in first - second]


def compare(ours: Answers, theirs: Answers, peer: str | None = None, rounding: float = 0.0) -> Proof:
    """Return how far another program agrees with ours; InputError if ours computes no finite logits.

    `rounding` is the relative error of its f32, where it is coarser than f32.
    """
    if not all(bool(np.isfinite(rows).all()) for rows in ours.logits):
        fix = "its weights are damaged; use another model"
        raise InputError("the model's logits are not finite", where="source", fix=fix)
    differences = [_largest(a, b) for a, b in zip(ours.logits, theirs.logits, strict=True)]
    costs = None if ours.nll is None or theirs.nll is None else theirs.nll - ours.nll
    triples = list(zip(ours.texts, theirs.texts, ours.gaps, strict=True))
    tie = max(TIE, 2 * rounding * _largest_logit(ours))
    return Proof(
        peer=peer or theirs.program,
        max_logit_difference=max(differences) if differences else None,
        nll_difference=costs,
        tokenizer_ids_equal=None if ours.ids is None or theirs.ids is None else ours.ids == theirs.ids,
        greedy_equal=all(_same_text(*triple, tie) for triple in triples) if triples else None,
    )


def _largest(ours: Logits, theirs: Logits) -> float:
    """Return the largest difference, infinity for another shape or anything not finite."""
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return math.inf
    return float(np.abs(ours - theirs).max())


def _largest_logit(answers: Answers) -> float:
    return max((float(np.abs(rows).max()) for rows in answers.logits), default=0.0)


def _same_text(ours: Sequence[int], theirs: Sequence[int], gaps: Sequence[float], tie: float) -> bool:
    """Return whether two greedy texts are equal up to the first tie, after which they may go apart."""
    for a, b, gap in zip(ours, theirs, gaps, strict=False):
        if a != b:
            return gap < tie
    return len(ours) == len(theirs)


def require(
    proof: Proof, ours: Answers, dtype: str, *, where: str, same_ids: bool = True, rounding: float = 0.0
) -> None:
    """Raise GptkitError for a proof that fails: f32 must be equal but for rounding, a lesser dtype cost little."""

    def fail(what: str) -> GptkitError:
        return GptkitError(f"{proof.peer} computes something else: {what}; nothing was written", where=where)

    if same_ids and proof.tokenizer_ids_equal is False:
        raise fail("its tokenizer gives other ids for the same text")
    largest, cost = proof.max_logit_difference, proof.nll_difference
    if dtype == "f32":
        most = max(LARGEST_DIFFERENCE, max(1e-5, rounding) * _largest_logit(ours))
        if largest is not None and not largest <= most:
            raise fail(f"logits differ by {largest:.1e}, more than {most:.1e}")
        if proof.greedy_equal is False:
            raise fail("greedy text differs, and not by a tie")
    if largest is not None and not math.isfinite(largest):
        raise fail("logits are not finite, or not as many")
    if cost is not None and not abs(cost) <= LARGEST_COST[dtype]:  # also true for NaN
        raise fail(f"NLL changes by {cost:+.3g} nats per token, more than {LARGEST_COST[dtype]} for {dtype}")
