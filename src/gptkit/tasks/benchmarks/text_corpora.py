"""Evaluations of running text: a corpus as passages, and the protocols that read it as the literature does.

Any text, or what `gptkit pretrain` without arguments holds out (perplexity); the Wall Street Journal of the Penn
Treebank, as Mikolov prepared it (ptb); the One Billion Word Benchmark (1bw); and the first 100,000,000 bytes of
Wikipedia, as XML and as bare letters, of which the last twentieth is the test (enwik8 and text8).

Examples are passages, see text/pieces.py, named "<document>:<passage>"; joined they are the file.

sliding         one stream in disjoint windows of n_positions (Hugging Face's recipe for WikiText)
sliding-half    one stream, each token with half a window or more before it; sliding-<N>: for a stride of N
documents       each document alone behind the separator, in disjoint windows (lm-eval's rolling windows)
paper           one stream of de-tokenised text in disjoint windows, per word of the corpus (GPT-2 paper, 3.1)
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from gptkit.errors import InputError
from gptkit.scoring.protocols import Published, ScoredProtocol
from gptkit.scoring.running_text import Reading, Stride, TextProtocol, Texts, count_words_and_line_ends, whole_window
from gptkit.system.reading import invalid_utf8
from gptkit.tasks.detokenizers import ONE_BILLION_WORDS, TREEBANK
from gptkit.tasks.files import find_files, opened
from gptkit.tasks.task import Evaluation, Loaded, gpt2, loaded
from gptkit.text.corpora import open_corpus, open_text
from gptkit.text.examples import Example
from gptkit.text.pieces import is_blank, passages
from gptkit.text.readers import read_plain_text

ORDER = 0  # the first evaluation is what eval does unless asked for another: perplexity
HELD_OUT = "0.1"  # what `gptkit pretrain` holds out by default
HUTTER_BYTES = 100_000_000
HUTTER_TEST_BYTES = 5_000_000
Documents = Iterable[tuple[str, str]]  # the text of each, and its place
PER_WORD = ("word_perplexity", "token_perplexity", "bits_per_byte", "bits_per_character")
PER_BYTE = ("bits_per_byte", "token_perplexity", "word_perplexity", "bits_per_character")
PER_CHARACTER = ("bits_per_character", "token_perplexity", "word_perplexity", "bits_per_byte")
_ZIP_MAGIC = b"PK\x03\x04"
_LEADING_BLANK_LINES = re.compile(r"^\s*\n")


def load_passages(documents: Documents, notes: Sequence[str] = (), *, within_lines: bool = False) -> Loaded:
    """Return the passages of documents.

    `within_lines`: they may end within a line; not where a line must be seen whole to be de-tokenised.
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


def sentences(path: Path) -> Documents:
    """Yield a document a line, cut before the line end that precedes it."""
    lines = whole_text(path).rstrip("\n").split("\n")
    for number, line in enumerate(lines, 1):
        yield "\n" * (number > 1) + line + "\n" * (number == len(lines)), f"{path}:{number}"


def one_document(path: Path) -> Documents:
    yield whole_text(path), f"{path}:1"


def last_twentieth(path: Path) -> Documents:
    """Yield the test part of enwik8 or text8, plain or zipped: the last 5,000,000 of its 100,000,000 bytes."""
    raw = _last_bytes(path)
    first = HUTTER_BYTES - HUTTER_TEST_BYTES
    # The first character may be cut in two; what is longer is no UTF-8, and decoding says so.
    torn = next((place for place, byte in enumerate(raw[:4]) if byte & 0xC0 != 0x80), 0)
    try:
        text = raw[torn:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid_utf8(f"{path}, byte {first + torn + error.start}", error) from None
    if "\0" in text:
        where = f"{path}, byte {first + raw.index(0)}"
        raise InputError("binary data (a NUL byte), where UTF-8 text is needed", where=where, fix="fetch it again")
    yield text, f"{path}, byte {first + torn}"


def _last_bytes(path: Path) -> bytes:
    with opened(path) as file:
        if file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC:
            return _last_zipped(path)
        _require_size(path, file.seek(0, io.SEEK_END))
        file.seek(HUTTER_BYTES - HUTTER_TEST_BYTES)
        return file.read()


def _last_zipped(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) != 1:
                names = ", ".join(member.filename for member in members[:4]) or "nothing"
                raise InputError(f"an archive of {names}", where=str(path), fix="unpack it and name the file")
            _require_size(path, members[0].file_size)
            with archive.open(members[0]) as file:
                file.seek(HUTTER_BYTES - HUTTER_TEST_BYTES)
                return file.read()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"damaged archive: {error}", where=str(path), fix="fetch it again") from None


def _require_size(path: Path, size: int) -> None:
    if size != HUTTER_BYTES:
        message = f"{size:,} bytes, where the corpus has {HUTTER_BYTES:,}"
        raise InputError(message, where=str(path), fix="fetch the whole file again")


def lm_eval_page(passages: Sequence[str]) -> list[str]:
    """Return a document's passages without the blank lines before it, as lm-eval's data set of articles has them."""
    return [_LEADING_BLANK_LINES.sub("", passage) if not number else passage for number, passage in enumerate(passages)]


@dataclass(frozen=True)
class Stream:
    """How sliding windows read a corpus, in the words of `about`, and its measures, the gated one first."""

    reading: Reading
    joined: str
    measures: tuple[str, ...]

    def sliding(self, *published: Published) -> ScoredProtocol:
        return self._windows("sliding", "in disjoint windows of n_positions", published)

    def sliding_half(self, *published: Published) -> ScoredProtocol:
        about = "each token but the first with half a window before it or more"
        return self._windows("sliding-half", about, published, lambda n_positions: max(1, n_positions // 2))

    def with_stride(self, stride: int) -> ScoredProtocol:
        """Return the protocol, whose requests and settings raise UsageError for what is not 1 to n_positions."""
        about = f"each token but the first with n_positions - {stride:,} tokens before it or more"
        return self._windows(f"sliding-{stride}", about, (), lambda n_positions: stride)

    def _windows(
        self, name: str, about: str, published: tuple[Published, ...], stride: Stride = whole_window
    ) -> ScoredProtocol:
        about = f"{self.joined}, {about}; every token is scored once"
        return TextProtocol(name, about, self.measures, published=published, reading=self.reading, stride=stride)


def paper_protocol(detokenize: Callable[[str], str], *word_perplexities: float) -> ScoredProtocol:
    def written(texts: Texts) -> list[str]:
        """Return passages as people write them, their lines without the spaces at either end."""
        return ["\n".join(detokenize(line.strip(" ")) for line in text.split("\n")) for text in texts]

    return TextProtocol(
        "paper",
        "de-tokenised text as one stream in disjoint windows of n_positions, per word of the text before, "
        "the ends of lines among them; the paper published neither its de-tokenizers nor its windows",
        PER_WORD,
        published=gpt2("word_perplexity", *word_perplexities),
        reading=Reading("as they are", render=written, words=count_words_and_line_ends),
    )


def corpus_row(
    name: str,
    about: str,
    data: str,
    files: Sequence[str],
    source: str,
    documents: Callable[[Path], Documents],
    stream: Stream,
    *protocols: ScoredProtocol,
    overlap: tuple[float, float] | None = None,
    within_lines: bool = False,
) -> Evaluation:
    """Return the evaluation of a test file: the names it may have, its source, and how it falls into documents.

    For `overlap` see Evaluation, for `within_lines` load_passages.
    """

    def load(given: str | None) -> Loaded:
        """Return the passages; UsageError without data, InputError with file and line for what cannot be read."""
        [path] = find_files(name, given, [(file,) for file in files], source=source)
        return load_passages(documents(path), within_lines=within_lines)

    about = f"{about}; an item is a passage of about 2 KB"
    return Evaluation(name, about, data, load, protocols, sliding=stream.with_stride, overlap=overlap)


def _hutter(
    name: str, unit: str, measures: tuple[str, ...], bits: tuple[float, ...], overlap: tuple[float, float]
) -> Evaluation:
    stream = Stream(Reading("as they are"), "the file as it is", measures)
    return corpus_row(
        name,
        f"the last 5,000,000 {unit} of {name}",
        f"{name} or {name}.zip",
        (name, f"{name}.zip"),
        "mattmahoney.net/dc/enwik8.zip",
        last_twentieth,
        stream,
        stream.sliding(*gpt2(measures[0], *bits)),
        stream.sliding_half(),
        overlap=overlap,
        within_lines=True,
    )


_TEXT = Stream(Reading("by the separator"), "documents joined by the separator", PER_BYTE)
_DOCUMENTS = TextProtocol(
    "documents",
    "each document alone behind the separator, in disjoint windows of n_positions",
    PER_BYTE,
    reading=Reading("not at all"),
)
_SENTENCES = TextProtocol(
    "documents",
    "each sentence alone behind the separator, as distributed; per word, without ends of lines",
    PER_WORD,
    reading=Reading("not at all", lm_eval_page),
)
_WORDS = Stream(Reading("as they are", words=count_words_and_line_ends), "the file as it is", PER_WORD)
_1BW_TEST = "news.en.heldout-00000-of-00050"
_1BW_FOLDER = "heldout-monolingual.tokenized.shuffled"
_1BW_ARCHIVE = "1-billion-word-language-modeling-benchmark-r13output"

BENCHMARKS = (
    Evaluation(
        "perplexity",
        "any text, or without --data the text that `gptkit pretrain` without arguments holds out; an item is a passage "
        "of about 2 KB",
        "files, folders or globs of text as `gptkit pretrain` takes them",
        any_text,
        (_TEXT.sliding(), _TEXT.sliding_half(), _DOCUMENTS),
        sliding=_TEXT.with_stride,
    ),
    _hutter("enwik8", "bytes", PER_BYTE, (1.16, 1.01, 0.97, 0.93), (0.0750, 0.0631)),
    _hutter("text8", "characters", PER_CHARACTER, (1.17, 1.06, 1.02, 0.98), (0.0234, 0.0394)),
    corpus_row(
        "1bw",
        "the shuffled sentences of the One Billion Word Benchmark, each a document and an item",
        f"{_1BW_TEST} of {_1BW_FOLDER}",
        (_1BW_TEST, f"{_1BW_FOLDER}/{_1BW_TEST}", f"{_1BW_ARCHIVE}/{_1BW_FOLDER}/{_1BW_TEST}"),
        f"{_1BW_ARCHIVE}.tar.gz of statmt.org/lm-benchmark",
        sentences,
        _WORDS,
        paper_protocol(ONE_BILLION_WORDS.detokenize, 75.20, 55.72, 44.575, 42.16),
        _SENTENCES,
        _WORDS.sliding(),
        overlap=(0.1319, 0.0375),
    ),
    corpus_row(
        "ptb",
        "the Wall Street Journal of the Penn Treebank, Mikolov's test file",
        "ptb.test.txt of simple-examples",
        ("ptb.test.txt", "data/ptb.test.txt", "simple-examples/data/ptb.test.txt"),
        "Mikolov's simple-examples.tgz",
        one_document,
        _WORDS,
        paper_protocol(TREEBANK.detokenize, 65.85, 47.33, 40.31, 35.76),
        _WORDS.sliding(),
        _WORDS.sliding_half(),
        overlap=(0.0267, 0.0088),
    ),
)
