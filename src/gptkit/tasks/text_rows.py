"""The evaluations of running text: each corpus, how the literature reads it, and what it reports.

sliding         one stream in disjoint windows of n_positions (Hugging Face's recipe for WikiText)
sliding-half    one stream, each token with half a window or more before it; sliding-<N>: for a stride of N
documents       each document alone behind the separator, in disjoint windows (lm-eval's rolling windows)
paper           one stream of de-tokenised text in disjoint windows, per word of the corpus (GPT-2 paper, 3.1)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from gptkit.scoring.protocols import Evaluation, Published, ScoredProtocol
from gptkit.scoring.running_text import (
    Reading,
    Stride,
    Texts,
    count_words_and_line_ends,
    items_of,
    requests_of,
    settings_of,
)
from gptkit.tasks.detokenizers import detokenize_1bw, detokenize_ptb, detokenize_wikitext
from gptkit.tasks.reading import Loaded
from gptkit.tasks.text_corpora import TextCorpus, any_text, articles, last_twentieth, one_document, sentences
from gptkit.tasks.wikitext import joined_lines, lm_eval_page, lm_eval_text, lm_eval_words

PER_WORD = ("word_perplexity", "token_perplexity", "bits_per_byte", "bits_per_character")
PER_BYTE = ("bits_per_byte", "token_perplexity", "word_perplexity", "bits_per_character")
PER_CHARACTER = ("bits_per_character", "token_perplexity", "word_perplexity", "bits_per_byte")

_EXACTLY_ONCE = "every token is scored once"


@dataclass(frozen=True)
class _Stream:
    """How a row's sliding windows read its corpus, in the words of `about`, and its measures, the gated one first."""

    reading: Reading
    joined: str
    measures: tuple[str, ...]


_STREAMS = {
    "perplexity": _Stream(Reading("by the separator"), "documents joined by the separator", PER_BYTE),
    "wikitext2": _Stream(
        Reading("as they are", render=joined_lines, words=count_words_and_line_ends),
        "lines joined by two line ends as in Hugging Face's recipe (which leaves the first token of each window out)",
        PER_WORD,
    ),
    "ptb": _Stream(Reading("as they are", words=count_words_and_line_ends), "the file as it is", PER_WORD),
    "enwik8": _Stream(Reading("as they are"), "the file as it is", PER_BYTE),
    "text8": _Stream(Reading("as they are"), "the file as it is", PER_CHARACTER),
}
_STREAMS |= {"wikitext103": _STREAMS["wikitext2"], "1bw": _STREAMS["ptb"]}


def sliding_protocol(
    stride: int | None, row: str = "perplexity", published: tuple[Published, ...] = ()
) -> ScoredProtocol:
    """Return the protocol of a row's windows with this stride, None for n_positions.

    Its requests and settings raise UsageError for a stride of less than 1 or more than n_positions.
    """
    if stride is None:
        about = f"in disjoint windows of n_positions; {_EXACTLY_ONCE}"
        return _sliding("sliding", about, row, lambda n_positions: n_positions, published)
    about = f"each token but the first with n_positions - {stride:,} tokens before it or more; {_EXACTLY_ONCE}"
    return _sliding(f"sliding-{stride}", about, row, lambda n_positions: stride, published)


def with_stride(row: Evaluation, stride: int) -> Evaluation:
    """Return a row of running text with the one protocol of this stride; other rows as they are."""
    return replace(row, protocols=(sliding_protocol(stride, row.name),)) if row.name in _STREAMS else row


def _sliding_half(row: str, *published: Published) -> ScoredProtocol:
    about = f"each token but the first with half a window before it or more; {_EXACTLY_ONCE}"
    return _sliding("sliding-half", about, row, lambda n_positions: max(1, n_positions // 2), published)


def _sliding(name: str, about: str, row: str, stride: Stride, published: tuple[Published, ...]) -> ScoredProtocol:
    stream = _STREAMS[row]
    return _protocol(name, f"{stream.joined}, {about}", stream.reading, stream.measures, stride, published)


def _disjoint(
    name: str, about: str, reading: Reading, measures: tuple[str, ...], *published: Published
) -> ScoredProtocol:
    return _protocol(name, about, reading, measures, lambda n_positions: n_positions, published)


def _protocol(
    name: str,
    about: str,
    reading: Reading,
    measures: tuple[str, ...],
    stride: Stride,
    published: tuple[Published, ...],
) -> ScoredProtocol:
    return ScoredProtocol(
        name,
        about,
        measures,
        published=published,
        requests=partial(requests_of, reading, stride),
        items=partial(items_of, reading),
        settings=partial(settings_of, stride),
    )


def _by_lines(detokenize: Callable[[str], str]) -> Callable[[Texts], list[str]]:
    """Return the rendering of passages, their lines without the spaces at either end."""

    def render(passages: Texts) -> list[str]:
        return ["\n".join(detokenize(line.strip(" ")) for line in passage.split("\n")) for passage in passages]

    return render


def _paper(detokenize: Callable[[str], str], *word_perplexities: float) -> ScoredProtocol:
    about = (
        "de-tokenised text as one stream in disjoint windows of n_positions, per word of the text before, "
        "the ends of lines among them; the paper published neither its de-tokenizers nor its windows"
    )
    reading = Reading("as they are", render=_by_lines(detokenize), words=count_words_and_line_ends)
    return _disjoint("paper", about, reading, PER_WORD, *_table_3("word_perplexity", *word_perplexities))


def _table_3(measure: str, *values: float) -> tuple[Published, ...]:
    """Return the figures of GPT-2's table 3, one for each of its sizes."""
    sizes = ("GPT-2 117M", "GPT-2 345M", "GPT-2 762M", "GPT-2 1542M")
    return tuple(
        Published(size, measure, value, "GPT-2 paper, table 3") for size, value in zip(sizes, values, strict=True)
    )


def _hugging_face(model: str, value: float) -> Published:
    return Published(model, "token_perplexity", value, "Hugging Face's recipe, perplexity of fixed-length models")


def _lm_eval(*published: Published) -> ScoredProtocol:
    about = (
        "each article alone behind the separator, its punctuation put back by lm-eval's rules, in disjoint windows of "
        "n_positions; per word of the article as distributed, without ends of lines"
    )
    reading = Reading("not at all", lm_eval_page, lm_eval_text, lm_eval_words)
    return _disjoint("documents", about, reading, PER_WORD, *published)


def _row(
    name: str,
    about: str,
    data: str,
    load: Callable[[str | None], Loaded],
    *protocols: ScoredProtocol,
) -> Evaluation:
    return Evaluation(name, f"{about}; an item is a passage of about 2 KB", data, load, protocols)


_WIKITEXT_2 = TextCorpus(
    "wikitext2",
    (("wiki.test.raw",), ("wiki.test.tokens",), ("wikitext-2-raw/wiki.test.raw",), ("wikitext-2/wiki.test.tokens",)),
    "Merity et al. 2016: wikitext-2-raw-v1 or wikitext-2-v1",
    articles,
)
_WIKITEXT_103 = TextCorpus(
    "wikitext103",
    (
        ("wiki.test.tokens",),
        ("wiki.test.raw",),
        ("wikitext-103/wiki.test.tokens",),
        ("wikitext-103-raw/wiki.test.raw",),
    ),
    "Merity et al. 2016: wikitext-103-v1 or wikitext-103-raw-v1",
    articles,
)
_PTB = TextCorpus(
    "ptb",
    (("ptb.test.txt",), ("data/ptb.test.txt",), ("simple-examples/data/ptb.test.txt",)),
    "Mikolov's simple-examples.tgz",
    one_document,
)
_1BW_TEST = "news.en.heldout-00000-of-00050"
_1BW_FOLDER = "heldout-monolingual.tokenized.shuffled"
_1BW = TextCorpus(
    "1bw",
    (
        (_1BW_TEST,),
        (f"{_1BW_FOLDER}/{_1BW_TEST}",),
        (f"1-billion-word-language-modeling-benchmark-r13output/{_1BW_FOLDER}/{_1BW_TEST}",),
    ),
    "1-billion-word-language-modeling-benchmark-r13output.tar.gz of statmt.org/lm-benchmark",
    sentences,
)
_ENWIK8 = TextCorpus("enwik8", (("enwik8",), ("enwik8.zip",)), "mattmahoney.net/dc/enwik8.zip", last_twentieth, True)
_TEXT8 = TextCorpus("text8", (("text8",), ("text8.zip",)), "mattmahoney.net/dc/text8.zip", last_twentieth, True)

TEXT_ROWS: tuple[Evaluation, ...] = (
    _row(
        "perplexity",
        "any text, or without --data the text that `gptkit pretrain` without arguments holds out",
        "files, folders or globs of text as `gptkit pretrain` takes them",
        any_text,
        sliding_protocol(None),
        _sliding_half("perplexity"),
        _disjoint(
            "documents",
            "each document alone behind the separator, in disjoint windows of n_positions",
            Reading("not at all"),
            PER_BYTE,
        ),
    ),
    _row(
        "wikitext2",
        "the test articles of WikiText-2",
        "wiki.test.raw or wiki.test.tokens of WikiText-2",
        _WIKITEXT_2.load,
        _paper(detokenize_wikitext, 29.41, 22.76, 19.93, 18.34),
        _lm_eval(Published("GPT-2 117M", "word_perplexity", 37.37, "lm-eval's task wikitext")),
        sliding_protocol(None, "wikitext2", (_hugging_face("GPT-2 117M", 29.9), _hugging_face("GPT-2 762M", 19.44))),
        _sliding_half("wikitext2", _hugging_face("GPT-2 762M", 16.45)),
    ),
    _row(
        "wikitext103",
        "the test articles of WikiText-103",
        "wiki.test.tokens or wiki.test.raw of WikiText-103",
        _WIKITEXT_103.load,
        _paper(detokenize_wikitext, 37.50, 26.37, 22.05, 17.48),
        _lm_eval(),
        sliding_protocol(None, "wikitext103"),
        _sliding_half("wikitext103"),
    ),
    _row(
        "ptb",
        "the Wall Street Journal of the Penn Treebank, Mikolov's test file",
        "ptb.test.txt of simple-examples",
        _PTB.load,
        _paper(detokenize_ptb, 65.85, 47.33, 40.31, 35.76),
        sliding_protocol(None, "ptb"),
        _sliding_half("ptb"),
    ),
    _row(
        "1bw",
        "the shuffled sentences of the One Billion Word Benchmark, each a document and an item",
        f"{_1BW_TEST} of {_1BW_FOLDER}",
        _1BW.load,
        _paper(detokenize_1bw, 75.20, 55.72, 44.575, 42.16),
        _disjoint(
            "documents",
            "each sentence alone behind the separator, as distributed; per word, without ends of lines",
            Reading("not at all", lm_eval_page),
            PER_WORD,
        ),
        sliding_protocol(None, "1bw"),
    ),
    _row(
        "enwik8",
        "the last 5,000,000 bytes of enwik8",
        "enwik8 or enwik8.zip",
        _ENWIK8.load,
        sliding_protocol(None, "enwik8", _table_3("bits_per_byte", 1.16, 1.01, 0.97, 0.93)),
        _sliding_half("enwik8"),
    ),
    _row(
        "text8",
        "the last 5,000,000 characters of text8",
        "text8 or text8.zip",
        _TEXT8.load,
        sliding_protocol(None, "text8", _table_3("bits_per_character", 1.17, 1.06, 1.02, 0.98)),
        _sliding_half("text8"),
    ),
)
