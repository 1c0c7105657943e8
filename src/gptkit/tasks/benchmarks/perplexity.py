"""The perplexity of any text, or of the text that `gptkit pretrain` holds out by default."""

from __future__ import annotations

from itertools import groupby

from gptkit.scoring.running_text import Reading, TextProtocol
from gptkit.tasks.task import Evaluation, Loaded
from gptkit.tasks.text_corpora import PER_BYTE, Stream, load_passages
from gptkit.text.corpora import open_corpus, open_text

ORDER = 0
HELD_OUT = "0.1"  # the default of pretrain's --validation


def any_text(data: str | None) -> Loaded:
    """Return the text of DATA as `gptkit pretrain` reads it, or the text that it holds out by default."""
    if data is None:
        corpus = open_corpus((), HELD_OUT)
        part = corpus.validation
        notes: tuple[str, ...] = (f"validation text of the {corpus.description}",)
    else:
        part, notes = open_text(data)
    by_document = groupby(part.pieces(), key=lambda piece: piece.document)
    members = (list(pieces) for _, pieces in by_document)
    documents = (("".join(piece.text for piece in pieces), pieces[0].source) for pieces in members)
    return load_passages(documents, notes, within_lines=True)


_STREAM = Stream(Reading("by the separator"), "documents joined by the separator", PER_BYTE)
_DOCUMENTS = TextProtocol(
    "documents",
    "each document separately after the separator, in disjoint windows of n_positions",
    PER_BYTE,
    reading=Reading("not at all"),
)

BENCHMARKS = (
    Evaluation(
        "perplexity", any_text, (_STREAM.sliding(), _STREAM.sliding_half(), _DOCUMENTS), sliding=_STREAM.with_stride
    ),
)
