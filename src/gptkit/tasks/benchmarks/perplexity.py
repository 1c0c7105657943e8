"""The perplexity of any text, or of what `gptkit pretrain` without arguments holds out."""

from __future__ import annotations

from itertools import groupby

from gptkit.scoring.running_text import Reading, TextProtocol
from gptkit.tasks.task import Evaluation, Loaded
from gptkit.tasks.text_corpora import PER_BYTE, Stream, load_passages
from gptkit.text.corpora import open_corpus, open_text

ORDER = 0  # the first evaluation is what eval does unless asked for another: perplexity
HELD_OUT = "0.1"  # what `gptkit pretrain` holds out by default


def any_text(data: str | None) -> Loaded:
    """Return the text that DATA names as it does for `gptkit pretrain`, or what that holds out without arguments."""
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
    "each document alone behind the separator, in disjoint windows of n_positions",
    PER_BYTE,
    reading=Reading("not at all"),
)

BENCHMARKS = (
    Evaluation(
        "perplexity",
        "any text, or without --data the text that `gptkit pretrain` without arguments holds out; an item is a passage "
        "of about 2 KB",
        "files, folders or globs of text as `gptkit pretrain` takes them",
        any_text,
        (_STREAM.sliding(), _STREAM.sliding_half(), _DOCUMENTS),
        sliding=_STREAM.with_stride,
    ),
)
