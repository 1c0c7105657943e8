"""Evaluations of running text: a corpus as passages, and the ways in which the literature computes its perplexity.

Examples are passages (text/pieces.py) named "<document>:<passage>"; joined, they are the file. Protocols:

sliding         one stream in disjoint windows of n_positions (Hugging Face's recipe for WikiText)
sliding-half    one stream in windows with a stride of half a window; sliding-<N>: with a stride of N
documents       each document separately after the separator, in disjoint windows (lm-eval's rolling windows)
paper           one stream of de-tokenized text in disjoint windows, per word of the corpus (GPT-2 paper, 3.1)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptkit.errors import InputError
from gptkit.scoring.protocols import Published, ScoredProtocol
from gptkit.scoring.running_text import Reading, Stride, TextProtocol, Texts, count_words_and_line_ends, whole_window
from gptkit.tasks.files import find_files
from gptkit.tasks.task import Evaluation, Loaded, gpt2, loaded
from gptkit.text.examples import Example
from gptkit.text.pieces import is_blank, passages
from gptkit.text.readers import read_plain_text

Documents = Iterable[tuple[str, str]]  # (text, place)
PER_WORD = ("word_perplexity", "token_perplexity", "bits_per_byte", "bits_per_character")
PER_BYTE = ("bits_per_byte", "token_perplexity", "word_perplexity", "bits_per_character")
DISJOINT = "in disjoint windows of n_positions"
_LEADING_BLANK_LINES = re.compile(r"^\s*\n")


def load_passages(documents: Documents, notes: Sequence[str] = (), *, within_lines: bool = False) -> Loaded:
    """Return the passages of documents.

    `within_lines`: passages may end within a line; False where de-tokenizing needs whole lines.
    """
    examples = [
        Example((passage,), None, where, f"{number}:{place}")
        for number, (text, where) in enumerate(documents)
        for place, passage in enumerate(passages(text, within_lines=within_lines))
    ]
    return loaded(examples, notes)


def whole_text(path: Path) -> str:
    text = "".join(piece.text for piece in read_plain_text(path))
    if is_blank(text):
        raise InputError("no text in this file", where=f"{path}:1", fix="fetch or unpack it again")
    return text


def lm_eval_page(passages: Sequence[str]) -> list[str]:
    """Return a document's passages without its leading blank lines, as in lm-eval's data set of articles."""
    return [_LEADING_BLANK_LINES.sub("", passage) if not number else passage for number, passage in enumerate(passages)]


@dataclass(frozen=True)
class Stream:
    """A corpus as one stream of tokens: how it is read (`joined` says so in `about`), and its measures."""

    reading: Reading
    joined: str
    measures: tuple[str, ...]

    def sliding(self, *published: Published) -> ScoredProtocol:
        return self._windows("sliding", DISJOINT, published)

    def sliding_half(self, *published: Published) -> ScoredProtocol:
        about = _overlapping("half a window")
        return self._windows("sliding-half", about, published, lambda n_positions: max(1, n_positions // 2))

    def with_stride(self, stride: int) -> ScoredProtocol:
        """Return the protocol, whose requests and settings raise UsageError unless 1 <= stride <= n_positions."""
        about = _overlapping(f"n_positions - {stride:,} tokens")
        return self._windows(f"sliding-{stride}", about, (), lambda n_positions: stride)

    def _windows(
        self, name: str, about: str, published: tuple[Published, ...], stride: Stride = whole_window
    ) -> ScoredProtocol:
        return TextProtocol(
            name, f"{self.joined}; {about}", self.measures, published=published, reading=self.reading, stride=stride
        )


def _overlapping(context: str) -> str:
    return f"in windows of n_positions that overlap: after the first, each token has at least {context} of context"


BY_WORDS = Stream(Reading("as they are", words=count_words_and_line_ends), "the unchanged file", PER_WORD)


def paper_protocol(detokenize: Callable[[str], str], *word_perplexities: float) -> ScoredProtocol:
    def written(texts: Texts) -> list[str]:
        """Return de-tokenized passages, their lines without leading and trailing spaces."""
        return ["\n".join(detokenize(line.strip(" ")) for line in text.split("\n")) for text in texts]

    return TextProtocol(
        "paper",
        "de-tokenized text as one stream in disjoint windows of n_positions, per word of the original text, line ends "
        "included; the paper published neither its de-tokenizers nor its windows",
        PER_WORD,
        published=gpt2("word_perplexity", *word_perplexities),
        reading=Reading("as they are", render=written, words=count_words_and_line_ends),
    )


def corpus_row(
    name: str,
    files: Sequence[str],
    source: str,
    documents: Callable[[Path], Documents],
    stream: Stream,
    *protocols: ScoredProtocol,
    overlap: tuple[float, float] | None = None,
    within_lines: bool = False,
) -> Evaluation:
    """Return the evaluation of a test file: its possible names, its source, and the function that reads its documents.

    See Evaluation for `overlap`, load_passages for `within_lines`.
    """

    def load(given: str | None) -> Loaded:
        """Return the passages; UsageError without data, InputError with file and line for a bad file."""
        [path] = find_files(name, given, [(file,) for file in files], source=source)
        return load_passages(documents(path), within_lines=within_lines)

    return Evaluation(name, load, protocols, sliding=stream.with_stride, overlap=overlap)
