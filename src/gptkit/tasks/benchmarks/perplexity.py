"""The perplexity of any text; evaluate/own_text.py has that of the text that a model's own run held out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from gptkit.errors import UsageError
from gptkit.scoring.running_text import Reading, TextProtocol, ValidationProtocol
from gptkit.tasks.task import Evaluation, Loaded
from gptkit.tasks.text_corpora import DISJOINT, PER_BYTE, Stream, load_passages
from gptkit.text.corpora import TextPart, open_text

ORDER = 0


def any_text(data: str | None) -> Loaded:
    """Return the text of DATA as `gptkit pretrain` reads it."""
    if data is None:
        raise UsageError("perplexity needs a text", where="--data", fix="pass one: --data FILE")
    return text_of(*open_text(data))


def text_of(part: TextPart, notes: Sequence[str]) -> Loaded:
    """Return one side of a corpus."""
    by_document = groupby(part.pieces(), key=lambda piece: piece.document)
    members = (list(pieces) for _, pieces in by_document)
    documents = (("".join(piece.text for piece in pieces), pieces[0].source) for pieces in members)
    return load_passages(documents, notes, within_lines=True)


def validation_protocol(block: int | None = None) -> ValidationProtocol:
    """Return the protocol of a run's val_loss; `block` is its sequence length, by default the model's longest."""
    windows = DISJOINT if block is None else f"in disjoint windows of {block:,} tokens"
    about = f"{_JOINED}; {windows}, the text's first token unscored, as the run's val_loss"
    return ValidationProtocol("validation", about, PER_BYTE, reading=_READING, block=block)


_JOINED = "documents joined by the separator"
_READING = Reading("by the separator")
_STREAM = Stream(_READING, _JOINED, PER_BYTE)
_DOCUMENTS = TextProtocol(
    "documents",
    f"each document separately after the separator; {DISJOINT}",
    PER_BYTE,
    reading=Reading("not at all"),
)

BENCHMARKS = (
    Evaluation(
        "perplexity",
        any_text,
        (validation_protocol(), _STREAM.sliding(), _STREAM.sliding_half(), _DOCUMENTS),
        sliding=_STREAM.with_stride,
    ),
)
