"""Penn Treebank: Mikolov's version of its Wall Street Journal test set."""

from __future__ import annotations

from pathlib import Path

from gptkit.tasks.detokenizers import TREEBANK
from gptkit.tasks.text_corpora import BY_WORDS, Documents, corpus_row, paper_protocol, whole_text


def one_document(path: Path) -> Documents:
    yield whole_text(path), f"{path}:1"


BENCHMARKS = (
    corpus_row(
        "ptb",
        ("ptb.test.txt", "data/ptb.test.txt", "simple-examples/data/ptb.test.txt"),
        "Mikolov's simple-examples.tgz",
        one_document,
        BY_WORDS,
        paper_protocol(TREEBANK.detokenize, 65.85, 47.33, 40.31, 35.76),
        BY_WORDS.sliding(),
        BY_WORDS.sliding_half(),
        overlap=(0.0267, 0.0088),
    ),
)
