"""The One Billion Word Benchmark: shuffled sentences from news, each a document."""

from __future__ import annotations

from pathlib import Path

from gptkit.scoring.running_text import Reading, TextProtocol
from gptkit.tasks.detokenizers import ONE_BILLION_WORDS
from gptkit.tasks.text_corpora import (
    BY_WORDS,
    PER_WORD,
    Documents,
    corpus_row,
    lm_eval_page,
    paper_protocol,
    whole_text,
)

_TEST = "news.en.heldout-00000-of-00050"
_FOLDER = "heldout-monolingual.tokenized.shuffled"
_ARCHIVE = "1-billion-word-language-modeling-benchmark-r13output"


def sentences(path: Path) -> Documents:
    """Yield each line as a document, starting with the line end before it."""
    lines = whole_text(path).rstrip("\n").split("\n")
    for number, line in enumerate(lines, 1):
        yield "\n" * (number > 1) + line + "\n" * (number == len(lines)), f"{path}:{number}"


_SENTENCES = TextProtocol(
    "documents",
    "each sentence separately after the separator, as distributed; per word, line ends not counted",
    PER_WORD,
    reading=Reading("not at all", lm_eval_page),
)

BENCHMARKS = (
    corpus_row(
        "1bw",
        (_TEST, f"{_FOLDER}/{_TEST}", f"{_ARCHIVE}/{_FOLDER}/{_TEST}"),
        f"{_ARCHIVE}.tar.gz of statmt.org/lm-benchmark",
        sentences,
        BY_WORDS,
        paper_protocol(ONE_BILLION_WORDS.detokenize, 75.20, 55.72, 44.575, 42.16),
        _SENTENCES,
        BY_WORDS.sliding(),
        overlap=(0.1319, 0.0375),
    ),
)
