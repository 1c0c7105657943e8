"""8-grams shared with a corpus are found exactly, however its text is cut, and in flat memory."""

from __future__ import annotations

import math
import re
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptkit.evaluate import contamination
from gptkit.evaluate.contamination import corpus_pieces, need_unicode, overlap, texts_of
from gptkit.text.examples import Example
from gptkit.text.pieces import Piece
from gptkit.text.words import words_of

DOCUMENT = st.text(st.sampled_from("aaabB é\u0130_-'\n .\u201d\U0001f600"), max_size=120)
FOREIGN = st.text(
    st.sampled_from("時时。かカひ\u0e01\u0e48한글हि\u0301aB3.' \n\U0001f600\U0001f1e9\u200d"), max_size=60
)


def naive(
    documents: list[str],
    items: list[list[str]],
    words_of: Callable[[str], list[str]] = lambda text: re.findall(r"[^\W_]+", text.lower()),
) -> tuple[int, int, list[float]]:
    """Return 8-grams, those found, and the share of each item, by sets of words."""

    def ngrams(text: str) -> list[tuple[str, ...]]:
        words = words_of(text)
        return [tuple(words[i : i + 8]) for i in range(len(words) - 7)]

    corpus = {one for text in documents for one in ngrams(text)}
    shares = []
    for texts in items:
        every = [one for text in dict.fromkeys(texts) for one in ngrams(text)]
        shares.append(sum(one in corpus for one in every) / len(every) if every else math.nan)
    distinct = [one for text in dict.fromkeys(text for texts in items for text in texts) for one in ngrams(text)]
    return len(distinct), sum(one in corpus for one in distinct), shares


@settings(max_examples=150)
@given(
    st.lists(DOCUMENT, min_size=1, max_size=4),
    st.lists(st.lists(DOCUMENT, max_size=3), max_size=4),
    st.integers(1, 40),
    st.integers(2, 7),
)
def test_it_is_what_sets_of_words_give(documents: list[str], items: list[list[str]], cut: int, width: int) -> None:
    items = [*items, [documents[0][3:]], documents[:2]]
    pieces = [
        Piece(text[begin : begin + cut], number, "corpus")
        for number, text in enumerate(documents)
        for begin in range(0, max(1, len(text)), cut)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contamination, "CHUNK_BYTES", 1 << width + 8)  # longer than any word, or many to a document
        found = overlap(pieces, {"set": items, "other": [["a b a b a b a b"]]})["set"]
    ngrams, hits, shares = naive(documents, items)
    assert (found.ngrams, found.found) == (ngrams, hits)
    assert found.fractions == pytest.approx(shares, nan_ok=True)
    assert (found.fractions > 0).tolist() == [share > 0 for share in shares]


@example([""], ["3ก3 3か3🇩 \u0301"], 1)
@settings(max_examples=150)
@given(st.lists(FOREIGN, min_size=1, max_size=3), st.lists(FOREIGN, max_size=3), st.integers(1, 40))
def test_words_by_unicode_are_the_same_however_the_corpus_is_cut(
    documents: list[str], texts: list[str], cut: int
) -> None:
    items = [[text] for text in [*texts, documents[0][2:], documents[-1]]]
    pieces = [
        Piece(text[begin : begin + cut], number, "corpus")
        for number, text in enumerate(documents)
        for begin in range(0, max(1, len(text)), cut)
    ]
    found = overlap(pieces, {"set": items}, by_unicode=True)["set"]
    spelled = partial(re.sub, "[.']", "")  # within a word, no punctuation tells it from another
    ngrams, hits, shares = naive(documents, items, lambda text: [spelled(word) for word in words_of(text.casefold())])
    assert (found.ngrams, found.found) == (ngrams, hits)
    assert found.fractions == pytest.approx(shares, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "words", "wanted"),
    [
        ("时成和者名世行于生😀。", 10, True),
        ("私はカタカナを読むのが好き", 10, True),  # katakana stays together
        ("हिन्दी भाषा में लिखा हुआ यह एक वाक्य है", 9, True),  # the paper's rule drops the vowel signs
        ("Он сказал, что придёт завтра утром в девять", 8, False),
        ("한국어 문장은 띄어쓰기로 낱말을 나누어 쓰는 글 입니다", 8, False),
        ("The dog's well-known café doesn't open before nine", 11, False),  # dog s, well known, doesn t
    ],
)
def test_texts_of_which_the_paper_sees_few_words_are_searched_by_unicode(text: str, words: int, wanted: bool) -> None:
    assert need_unicode([[text]]) == wanted
    found = overlap([Piece(f"x {text} y", 0, "corpus")], {"set": [[text]]}, by_unicode=wanted)["set"]
    assert (found.ngrams, found.found) == (words - 7, words - 7)


def words(random: np.random.Generator, count: int) -> list[str]:
    return [f"w{number:x}" for number in random.integers(0, 1 << 40, count)]


def test_planted_passages_are_found_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    items = [words(random, 40) for _ in range(200)]
    corpus = words(random, 200_000)
    corpus[150_000:150_012] = [word.upper() for word in items[7][5:17]]  # 12 words: 5 of its 33 8-grams
    corpus[3_000:3_007] = items[9][:7]  # too short to count
    corpus[100_000:100_008] = items[11][-8:]
    pieces = [Piece(" ".join(corpus), 0, "corpus")]
    sets = {"all": [[" ".join(one)] for one in items], "none": [[" ".join(words(random, 30))], ["seven words"], []]}
    found = overlap(pieces, sets)
    assert (found["all"].ngrams, found["all"].found) == (200 * 33, 6)
    assert found["all"].fraction == pytest.approx(6 / 6600)
    assert np.flatnonzero(found["all"].fractions).tolist() == [7, 11]
    assert found["all"].fractions[7] == pytest.approx(5 / 33)
    assert (found["none"].found, np.nansum(found["none"].fractions)) == (0, 0)
    assert np.isnan(found["none"].fractions).tolist() == [False, True, True]  # too short to be called clean
    assert overlap(pieces, {"empty": []})["empty"].fraction is None


def test_no_8_gram_goes_across_documents_or_texts() -> None:
    pieces = [Piece("a b c d", 0, "x"), Piece(" e f g h", 0, "x"), Piece("i j k l m n o", 1, "x"), Piece("p", 0, "y")]
    texts = ["a b c d e f g h", "b c d e f g h i", "i j k l m n o p"]
    assert overlap(pieces, {"set": [[text] for text in texts]})["set"].fractions.tolist() == [1, 0, 0]
    assert overlap(pieces, {"set": [["a b c d", "e f g h"]]})["set"].ngrams == 0


def test_memory_does_not_grow_with_the_corpus() -> None:
    text = " ".join(words(np.random.default_rng(1), 6_000))  # 65,536 bytes or so

    def peak(megabytes: int) -> int:
        tracemalloc.start()
        try:
            pieces = (Piece(text, number, "corpus") for number in range(16 * megabytes))
            overlap(pieces, {"set": [["one two three four five six seven eight"]]})
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(12) < 1.1 * peak(3) < 100e6


def test_all_texts_of_an_example_are_looked_for() -> None:
    example = Example(("a context", "a question", ("one", "two")), 1, "x:1", "0")
    assert texts_of(example) == ("a context a question", "one", "two")


def test_files_of_one_document_each_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a b c d")
    (tmp_path / "b.txt").write_text("e f g h")
    (tmp_path / "c.jsonl").write_text('{"text": "a b c d e f g h"}\n')
    items = {"set": [["a b c d e f g h"]]}
    assert overlap(corpus_pieces(str(tmp_path / "*.txt")), items)["set"].found == 0
    assert overlap(corpus_pieces(str(tmp_path)), items)["set"].found == 1
