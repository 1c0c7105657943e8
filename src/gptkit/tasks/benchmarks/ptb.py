"""The Wall Street Journal of the Penn Treebank, as Mikolov prepared it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gptkit.tasks.detokenizers import TREEBANK
from gptkit.tasks.text_corpora import BY_WORDS, PER_WORD, Document, Stream, corpus_row, paper_protocol, whole_text


def one_document(path: Path) -> Iterator[Document]:
    yield Document(whole_text(path), f"{path}:1")


_STREAM = Stream(BY_WORDS, "the file as it is", PER_WORD)

BENCHMARKS = (
    corpus_row(
        "ptb",
        "the Wall Street Journal of the Penn Treebank, Mikolov's test file",
        "ptb.test.txt of simple-examples",
        ("ptb.test.txt", "data/ptb.test.txt", "simple-examples/data/ptb.test.txt"),
        "Mikolov's simple-examples.tgz",
        one_document,
        _STREAM,
        paper_protocol(TREEBANK.detokenize, 65.85, 47.33, 40.31, 35.76),
        _STREAM.sliding(),
        _STREAM.sliding_half(),
        overlap=(0.0267, 0.0088),
    ),
)
