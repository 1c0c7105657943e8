from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptkit.errors import UsageError
from gptkit.scoring.asking import score_protocols
from gptkit.scoring.encoder import Encoder
from gptkit.scoring.measures import MEASURES, measure
from gptkit.scoring.protocols import Answer, Items, Request, ScoredProtocol
from gptkit.scoring.running_text import Reading, TextProtocol
from gptkit.tasks.benchmarks.perplexity import any_text
from gptkit.tasks.benchmarks.wikitext import articles, joined_lines, lm_eval_text, lm_eval_words
from gptkit.tasks.table import EVALUATIONS, kind_of, with_stride
from gptkit.tasks.text_corpora import PER_WORD, lm_eval_page
from gptkit.text import pieces
from gptkit.text.examples import Example
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer

ROWS = {name: row for name, row in EVALUATIONS.items() if kind_of(row) == "texts"}
CHARACTERS = train_tokenizer("char", ["ab \n"])
V = len(CHARACTERS)
A, B, SPACE, LINE_END = CHARACTERS.convert_tokens_to_ids(["a", "b", " ", "\n"])

LogProbs = Callable[[Request], Sequence[float]]


def uniform(request: Request) -> Sequence[float]:
    return [-math.log(V)] * (len(request.ids) - request.start)


def score(protocol: ScoredProtocol, examples: Sequence[Example], encoder: Encoder, log_probs: LogProbs) -> Items:
    def answer(request: Request) -> Answer:
        scored = request.ids[request.start :]
        return Answer(np.array(log_probs(request), np.float64), scored, scored)

    def scorer(groups: Sequence[tuple[Request, ...]], banned: Sequence[int]) -> list[tuple[Answer, ...]]:
        return [tuple(map(answer, group)) for group in groups]

    [items] = score_protocols([protocol], examples, encoder, scorer)
    return items


def of(*documents: Sequence[str]) -> list[Example]:
    """Return examples, given the passages of each document."""
    names = [(f"{one}:{two}", text) for one, parts in enumerate(documents) for two, text in enumerate(parts)]
    return [Example((text,), None, "here", name) for name, text in names]


def protocol_of(row: str, name: str) -> ScoredProtocol:
    [found] = [one for one in ROWS[row].protocols if one.name == name]
    assert isinstance(found, ScoredProtocol)
    return found


def sliding_protocol(stride: int | None) -> ScoredProtocol:
    if stride is None:
        return protocol_of("perplexity", "sliding")
    [found] = with_stride(ROWS["perplexity"], stride).protocols
    assert isinstance(found, ScoredProtocol)
    return found


DOCUMENTS = st.lists(
    st.lists(st.text("ab", min_size=1, max_size=12), min_size=1, max_size=5).map(
        lambda words: [words[0], *(f" {word}" for word in words[1:])]
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60)
@given(DOCUMENTS, st.integers(1, 9), st.integers(1, 9))
def test_a_uniform_model_gives_the_closed_form_of_every_measure(
    documents: list[list[str]], window: int, stride: int
) -> None:
    examples, encoder = of(*documents), Encoder(CHARACTERS, window)
    texts = [str(one.fields[0]) for one in examples]
    characters, words = sum(map(len, texts)), sum(len(text.split()) for text in texts)
    tokens = characters + len(documents) - 1  # the separators between documents
    items = score(sliding_protocol(min(stride, window)), examples, encoder, uniform)
    found = {name: entry["value"] for name, entry in measure(ROWS["perplexity"].protocols[0].measures, items).items()}
    assert found["token_perplexity"] == pytest.approx(V)
    assert found["word_perplexity"] == pytest.approx(V ** (tokens / words))
    assert found["bits_per_byte"] == pytest.approx(math.log2(V) * tokens / characters)
    assert found["bits_per_character"] == found["bits_per_byte"]
    assert items.columns["tokens"].sum() == tokens
    assert items.ids == tuple(one.identifier for one in examples)


BIGRAMS = {(A, A): 0.25, (A, B): 0.5, (B, A): 0.125, (B, B): 0.0625, (B, SPACE): 0.5, (SPACE, A): 0.5, (SPACE, B): 0.25}


def bigram(request: Request) -> list[float]:
    pairs = zip(request.ids[request.start - 1 :].tolist(), request.ids[request.start :].tolist(), strict=False)
    return [math.log(BIGRAMS.get(pair, 0.125)) for pair in pairs]


@pytest.mark.parametrize("stride", [1, 2, 3, None])
def test_the_nll_of_a_bigram_table_by_hand_and_whatever_the_stride(stride: int | None) -> None:
    """ab|␣ba and aa: log2 of sep-a, a-b, then b-␣, ␣-b, b-a; then a-sep, sep-a, a-a."""
    items = score(sliding_protocol(stride), of(["ab", " ba"], ["aa"]), Encoder(CHARACTERS, 3), bigram)
    bits = [3 + 1, 1 + 2 + 3, 3 + 3 + 2]
    np.testing.assert_allclose(items.columns["nll"], np.multiply(bits, math.log(2)))
    assert items.columns["tokens"].tolist() == [2, 3, 3]
    assert items.columns["words"].tolist() == [1, 1, 1]


def test_documents_alone_begin_behind_the_separator() -> None:
    examples, encoder = of(["ab", " ba"], ["aa"]), Encoder(CHARACTERS, 4)
    groups = protocol_of("perplexity", "documents").requests(examples, encoder)
    ids = [[one.ids.tolist() for one in group] for group in groups]
    separator = encoder.separator
    assert ids == [[[separator, A, B, SPACE, B]], [[A, B, SPACE, B, A]], [[separator, A, A]]]
    assert [[one.start for one in group] for group in groups] == [[1], [4], [1]]


def test_a_group_may_be_empty_and_the_first_passages_score_as_in_the_whole() -> None:
    documents = [["ab", " ba", " b", " aab"], ["aa", " bb"]]
    encoder = Encoder(CHARACTERS, 6)
    whole = score(sliding_protocol(2), of(*documents), encoder, bigram)
    groups = sliding_protocol(2).requests(of(*documents), encoder)
    assert () in groups
    for limit in range(1, 6):
        part = score(sliding_protocol(2), of(*documents)[:limit], encoder, bigram)
        assert part.ids == whole.ids[:limit]
        np.testing.assert_allclose(part.columns["nll"], whole.columns["nll"][:limit])


def test_characters_and_bytes_are_counted_in_the_original_text() -> None:
    reading = Reading("as they are", render=lambda texts: ["b"] * len(texts), words=lambda texts: [7] * len(texts))
    examples, encoder = of(["é a", " ü"]), Encoder(CHARACTERS, 8)
    columns = score(TextProtocol("name", "about", (), reading=reading), examples, encoder, uniform).columns
    assert {name: columns[name].tolist() for name in ("bytes", "characters", "words", "tokens")} == {
        "bytes": [4, 3],
        "characters": [3, 2],
        "words": [7, 7],
        "tokens": [1, 1],
    }


def test_text_without_spaces_has_every_figure_but_that_of_white_space_words() -> None:
    """16 ideographs and 4 marks, of 3 bytes each, after 2 spaces: 20 nats for each of 22 tokens."""
    documents = ["时成和者，名世行于。 家此方日！ 国情为亲？"]
    encoder = Encoder(train_tokenizer("char", documents), 8)
    names = ("word_perplexity", "token_perplexity", "bits_per_byte", "bits_per_character")
    items = score(
        sliding_protocol(4), of(documents), encoder, lambda request: [-20.0] * (len(request.ids) - request.start)
    )
    found = measure(names, items)
    assert found.pop("word_perplexity") == {
        "value": None,
        "stderr": None,
        "higher_is_better": False,
        "reason": "white space separates only 3 of the 16 Unicode words (UAX #29; each CJK character is one)",
    }
    assert {name: entry["value"] for name, entry in found.items()} == {
        "unicode_word_perplexity": pytest.approx(math.exp(20 * 22 / 16)),
        "token_perplexity": pytest.approx(math.exp(20)),
        "bits_per_byte": pytest.approx(20 * 22 / math.log(2) / 62),
        "bits_per_character": pytest.approx(20 / math.log(2)),
    }


def test_text_that_the_tokenizer_does_not_know_has_a_perplexity_per_token_alone() -> None:
    found = measure(PER_WORD, score(sliding_protocol(2), of(["ab c"]), Encoder(CHARACTERS, 4), uniform))
    assert found.pop("token_perplexity")["value"] == pytest.approx(V)
    assert {*found} == {"word_perplexity", "bits_per_byte", "bits_per_character"}
    for entry in found.values():
        assert entry["value"] is None
        assert entry["reason"] == "1 of the text's 4 tokens are unknown to the tokenizer"
    rare = measure(PER_WORD, score(sliding_protocol(2), of(["ab " * 40 + "c"]), Encoder(CHARACTERS, 4), uniform))
    assert rare["word_perplexity"]["value"] == pytest.approx(V ** (121 / 41))
    assert rare["bits_per_byte"]["value"] is None


def test_a_stride_that_leaves_tokens_out_is_refused() -> None:
    encoder = Encoder(CHARACTERS, 8)
    for stride in (0, 9):
        for ask in (lambda one: one.requests(of(["ab"]), encoder), lambda one: one.settings(encoder)):
            with pytest.raises(UsageError, match=r"--stride.*pass a value from 1 to 8"):
                ask(sliding_protocol(stride))
    assert sliding_protocol(None).settings(encoder) == {"window": 8, "stride": 8}
    assert protocol_of("text8", "sliding-half").settings(encoder) == {"window": 8, "stride": 4}


def test_every_row_keeps_its_names() -> None:
    assert set(ROWS) == {"perplexity", "wikitext2", "wikitext103", "ptb", "1bw", "enwik8", "text8"}
    first = {"perplexity": "bits_per_byte", "enwik8": "bits_per_byte", "text8": "bits_per_character"}
    for name, row in ROWS.items():
        assert len({one.name for one in row.protocols}) == len(row.protocols)
        for protocol in row.protocols:
            assert protocol.measures[0] == first.get(name, "word_perplexity")
            assert set(protocol.measures) <= set(MEASURES)
            assert all(one.measure in protocol.measures for one in protocol.published)
        assert [one.name for one in with_stride(row, 32).protocols] == ["sliding-32"]


# How others read WikiText.


def test_joined_lines_are_hugging_faces_join() -> None:
    text = " \n = A = \n \n one \n two \n \n"
    rows = [line if line.strip() else "" for line in text.splitlines(keepends=True)]
    for cuts in ([], [1], [8], [10, 14], [8, 10, 14, 20]):
        passages_ = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert "".join(joined_lines(passages_)) == "\n\n".join(rows)


def test_lm_eval_pages_by_hand() -> None:
    passages_ = ['\n = A = \n \n He said : "', " I 'm 5 @.@ 4 ; old \" ( or 1 @,@ 000 ) .", "\n It 's N here \n "]
    page = lm_eval_page(passages_)
    assert page[0] == ' = A = \n \n He said : "'
    assert lm_eval_words(page) == [8, 15, 5]  # an empty word at either end of the page
    assert lm_eval_text(page) == [' = A =\n\nHe said: "', "I 'm 5.4; old\" (or 1,000) .", "\nIt's 1 here\n"]


def test_the_published_count_of_wikitext_2(test_data: Path) -> None:
    documents = articles(test_data / "corpora" / "wikitext2-valid.txt")
    examples = of(*(list(pieces.passages(text, within_lines=False)) for text, _ in documents))
    words = ROWS["wikitext2"].protocols[0].reading.words  # type: ignore[attr-defined]
    assert sum(words([str(one.fields[0]) for one in examples])) == 217_646
    assert len({one.identifier.partition(":")[0] for one in examples}) == 60


@pytest.mark.parametrize("name", ["bpe", pytest.param("gpt1", marks=pytest.mark.slow)])
def test_the_ids_of_passages_are_those_of_the_text(test_data: Path, name: str) -> None:
    union = any_text(str(test_data / "corpora" / "state_union.txt")).examples[:20]
    wikitext = (test_data / "corpora" / "wikitext2-valid.txt").read_text(encoding="utf-8")[:20_000]
    one_line = " ".join(str(one.fields[0]) for one in union).replace("\n", " ")
    page = lm_eval_page(list(pieces.passages(wikitext, within_lines=False)))
    texts = [str(one.fields[0]) for one in union]
    if name == "bpe":
        tokenizer = train_tokenizer("bpe:400", texts)
    else:
        pytest.importorskip("spacy")
        tokenizer = load_tokenizer(str(test_data / "tokenizers" / name))
    encoder = Encoder(tokenizer, 512)
    documents = [texts, list(pieces.passages(one_line, within_lines=True)), joined_lines(page), lm_eval_text(page)]
    for document, parts in zip(documents, encoder.encode_passages(documents), strict=True):
        [whole] = encoder.encode(["".join(document)])
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        if name != "gpt1":
            assert [tokenizer.decode(ids).strip() for ids in parts] == [text.strip() for text in document]


def test_where_no_white_space_parts_two_passages_a_token_across_counts_with_the_second() -> None:
    tokenizer = train_tokenizer("bpe:259", ["abab abab ab ab"])
    [parts] = Encoder(tokenizer, 512).encode_passages([["b", "a", "b", " a"]])
    assert tokenizer.convert_ids_to_tokens(np.concatenate(parts).tolist()) == ["b", "ab", "Ġ", "a"]
    assert list(map(len, parts)) == [1, 0, 1, 2]
