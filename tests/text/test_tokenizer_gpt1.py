"""GPT-1's tokenizer against ids worked out by hand, and against a slow reference written from OpenAI's rules."""

from __future__ import annotations

import functools
import json
import pickle
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import ftfy
import pytest
import spacy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import OpenAIGPTTokenizer

from gptkit.errors import InputError, UsageError
from gptkit.text.pieces import Piece, cut
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.text.tokenizers.encoding import encode_documents, encode_pieces
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer
from gptkit.text.tokenizers.gpt1_encoding import GPT1Encoder, encode_in_order, merged_pieces
from gptkit.text.tokenizers.loading import fingerprint, load_tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz'.-:;()<>&=089"
MERGES = [("l", "o"), ("lo", "w</w>"), ("n", "'"), ("n'", "t</w>"), (".", "."), ("..", ".</w>"), (":", "o")]
PIECES = [
    "<unk>",
    *LETTERS,
    *(letter + "</w>" for letter in LETTERS + '"!'),
    *(first + second for first, second in MERGES),
    "\n</w>",
]
VOCABULARY = {piece: id for id, piece in enumerate(PIECES)}

WORDS = [
    *["low", "Lower", "Don't", "it's", "he'd", "end.", "U.S.A.", "10a.m.", "e-mail", "b...", "..", "caf\u00e9", "(a)"],
    *[
        "8D:o)",
        "x:o",
        ":o",
        ")",
        "8",
        "8)",
        "=D",
        "(-:",
        "'d",
        "'s",
        "^_^",
        "<b>",
        "a<3",
        "C++",
        "a\\b",
        "\\n",
        "_low_",
    ],
    *["&amp;", "&lt;", "&nbsp;", "&NewLine;", "\u201clow\u201d", "\u2026", "\u2014", "\u00b4", "\u00c3\u00a9", "<unk>"],
    *["a\u0301", "\u0130l", "\u039f\u0394\u039f\u03a3", "\u4f60\u597d", "\ufb01", "\U0001f600", "\u00ad", "\x1b[31m"],
]
SPACES = ["", " ", " ", "\n", "\n\n", " \n ", "\t", "\r\n", "\r", "\u2028", "\x85", "\xa0", "\x0c", "\x1c"]
TEXTS = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(SPACES)), max_size=12).map(
    lambda pairs: "".join(word + space for word, space in pairs)
)


@functools.cache
def english() -> Any:
    return spacy.blank("en").tokenizer


def reference_pieces(token: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    symbols = list(token)
    symbols[-1] += "</w>"
    while True:
        ranked = [ranks[pair] for pair in pairwise(symbols) if pair in ranks]
        if not ranked:
            return symbols
        for index in range(len(symbols)):
            if ranks.get(tuple(symbols[index : index + 2])) == min(ranked):  # type: ignore[call-overload]
                symbols[index : index + 2] = ["".join(symbols[index : index + 2])]


def reference_ids(text: str, vocabulary: dict[str, int], ranks: dict[tuple[str, str], int]) -> list[int]:
    text = ftfy.fix_text(text)
    for old, new in {"\u2014": "-", "\u2013": "-", "\u2015": "-", "\u2026": "...", "\u00b4": "'"}.items():
        text = text.replace(old, new)
    for mark in '-~!";?+,()/*[]{}|_':
        text = re.sub(f"{re.escape(mark)}+", lambda run: f" {run[0]} ", text)
    text = re.sub(r"\s*\n\s*", " \n ", text)
    text = re.sub(r"[^\S\n]+", " ", text).strip()
    ids = []
    for token in english()(text):
        word = token.text.lower()
        pieces = ["\n</w>"] if word.strip(" ") == "\n" else reference_pieces(word, ranks)
        ids += [vocabulary.get(piece, 0) for piece in pieces]
    return ids


@pytest.fixture(scope="module")
def encoder() -> GPT1Encoder:
    return GPT1Encoder(VOCABULARY, MERGES)


@pytest.fixture(scope="module")
def tokenizer() -> GPT1Tokenizer:
    return GPT1Tokenizer(VOCABULARY, MERGES)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """OpenAI's two files, with the small vocabulary."""
    (tmp_path / "encoder_bpe_40000.json").write_text(json.dumps(VOCABULARY), encoding="utf-8")
    merges = ["#version: 0.2", *map(" ".join, MERGES)]
    (tmp_path / "vocab_40000.bpe").write_text("\n".join(merges) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Low lower", "low</w> lo w e r</w>"),
        ("Don't", "d o</w> n't</w>"),
        ("a\u2014b --", "a</w> -</w> b</w> - -</w>"),
        ("wait\u2026", "w a i t</w> ...</w>"),
        ("\u201chi\u201d", '"</w> h i</w> "</w>'),
        ("a&lt;b !", "a</w> <</w> b</w> !</w>"),
        ("caf\u00e9 \u00c3\u00a9 cafe", "c a f <unk> <unk> c a f e</w>"),
        ("a\\b", "a <unk> b</w>"),  # OpenAI's pattern means to set backslashes apart, and does not
        ("<unk>", "<</w> u n k</w> ></w>"),
        ("", ""),
        (" \n\u00a0\t", ""),
    ],
)
def test_rules_by_hand(encoder: GPT1Encoder, text: str, pieces: str) -> None:
    assert [PIECES[id] for id in encoder.encode(text)] == pieces.split()


def test_the_newline_token_stands_between_lines_alone(encoder: GPT1Encoder) -> None:
    text = "\n \n a \r\n\t\n b\u2028c\n"
    assert [PIECES[id] for id in encoder.encode(text)] == ["a</w>", "\n</w>", "b</w>", "\n</w>", "c</w>"]


def test_html_is_unescaped_until_a_line_with_a_tag(encoder: GPT1Encoder) -> None:
    spelled = "".join(PIECES[id] for id in encoder.encode("&lt;\n<b> &lt;\n&lt;"))
    assert spelled.split("\n</w>") == ["<</w>", "<</w>b</w>></w>&</w>lt</w>;</w>", "&</w>lt</w>;</w>"]


def test_all_occurrences_of_the_best_pair_are_merged_before_any_other() -> None:
    """Merging one at a time would let (abc, ab), of better rank than (ab, c), come in between."""
    ranks = {("a", "b"): 0, ("abc", "ab"): 1, ("ab", "c"): 2, ("x", "x"): 3}
    assert merged_pieces("abcabcd", ranks) == ["abc", "abc", "d</w>"]
    assert merged_pieces("xxxy", ranks) == ["xx", "x", "y</w>"]
    assert merged_pieces("x", ranks) == ["x</w>"]


@settings(max_examples=300)
@given(TEXTS)
@example("don't 8D:o)\n x :o ) x:o")  # spaCy's exception is hidden by one that a space undoes
@example("<b>\n&lt; &amp;lt;")
def test_ids_equal_the_reference(encoder: GPT1Encoder, text: str) -> None:
    ranks = {pair: rank for rank, pair in enumerate(MERGES)}
    assert encoder.encode(text).tolist() == reference_ids(text, VOCABULARY, ranks)


@settings(max_examples=150)
@given(st.lists(st.tuples(TEXTS, st.sets(st.integers(0, 60))), min_size=1, max_size=3))
def test_documents_cut_anywhere_have_the_ids_of_the_whole(
    encoder: GPT1Encoder, documents: list[tuple[str, set[int]]]
) -> None:
    pieces = [Piece(part, n, "") for n, (text, cuts) in enumerate(documents) for part in cut_at(text, sorted(cuts))]
    ids: dict[int, list[int]] = {n: [] for n in range(len(documents))}
    for document, found in encode_in_order(encoder, pieces, workers=1):
        ids[document] += found.tolist()
    assert list(ids.values()) == [encoder.encode(text).tolist() for text, _ in documents]


def cut_at(text: str, cuts: Sequence[int]) -> list[str]:
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def test_a_line_without_end_is_cut_at_spaces(encoder: GPT1Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.text.tokenizers.gpt1_encoding.LONGEST_LINE", 50)
    text = "low lower don't " * 30
    pieces = [Piece(part, 0, "") for part in cut_at(text, range(7, len(text), 7))]
    ids = [id for _, found in encode_in_order(encoder, pieces, workers=1) for id in found.tolist()]
    assert ids == encoder.encode(text).tolist()


@pytest.mark.slow
def test_worker_processes_change_nothing(encoder: GPT1Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.text.tokenizers.gpt1_encoding.TASKS_WORTH_WORKERS", 2)
    texts = [f"low {n}: it's &lt; \u201cb\u201d\n" * 3000 for n in range(6)] + [""]
    pieces = [Piece(part, n, "") for n, text in enumerate(texts) for part in cut([text])]
    alone, together = (
        [(document, ids.tolist()) for document, ids in encode_in_order(encoder, pieces, workers=n)] for n in (1, 2)
    )
    assert together == alone
    assert {document for document, _ in together} == set(range(7))


def test_threads_may_encode_at_once(tokenizer: GPT1Tokenizer, request: pytest.FixtureRequest) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    request.addfinalizer(lambda: sys.setswitchinterval(before))
    texts = [f"low{n} x:o ) lower{n}" * 20 for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: encode_pieces(tokenizer, [text])[0].tolist(), texts))
    assert found == [tokenizer(text)["input_ids"] for text in texts]


def test_every_plain_character_is_what_ftfy_leaves_alone() -> None:
    plain = "\t\n" + "".join(map(chr, range(32, 127))).replace("&", "")
    assert all(ftfy.fix_text(first + second) == first + second for first in plain for second in plain)


def test_as_a_tokenizer_of_transformers(tokenizer: GPT1Tokenizer) -> None:
    assert tokenizer.decode(tokenizer("Don't\nlower")["input_ids"]) == "do n't \n lower"
    assert tokenizer.tokenize("low") == ["low</w>"]
    assert tokenizer.eos_token_id is None
    assert tokenizer.pad_token_id is None
    assert separator_id(tokenizer) == VOCABULARY["\n</w>"] == len(tokenizer) - 1
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy("low")["input_ids"] == tokenizer("low")["input_ids"]


def test_added_tokens_are_kept_and_never_read_out_of_text(directory: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(directory))
    before = fingerprint(tokenizer)
    assert tokenizer.add_special_tokens({"pad_token": "<pad>", "additional_special_tokens": ["<|start|>"]}) == 2
    tokenizer.save_pretrained(tmp_path / "saved")
    loaded = load_tokenizer(str(tmp_path / "saved"))
    assert type(loaded) is GPT1Tokenizer
    assert fingerprint(loaded) == fingerprint(tokenizer) != before
    start, pad = loaded.convert_tokens_to_ids(["<|start|>", "<pad>"])
    assert {start, pad} == {len(VOCABULARY), len(VOCABULARY) + 1}
    assert start not in loaded("a <|start|> b")["input_ids"]
    batch = loaded(["low low", "low"], padding=True)
    assert batch["input_ids"][1] == [VOCABULARY["low</w>"], pad]
    assert batch["attention_mask"][1] == [1, 0]
    assert loaded.decode([start, VOCABULARY["low</w>"]]) == "<|start|>low"


def test_transformers_own_files_give_openais_ids(directory: Path, tmp_path: Path) -> None:
    """Its tokenizer.json and vocab.json hold GPT-1's vocabulary; its rules, which are not GPT-1's, are not taken."""
    theirs = OpenAIGPTTokenizer(VOCABULARY, MERGES)
    theirs.add_tokens(["<|x|>"], special_tokens=True)
    theirs.save_pretrained(tmp_path / "json")
    (tmp_path / "plain").mkdir()
    (directory / "encoder_bpe_40000.json").rename(tmp_path / "plain" / "vocab.json")
    (directory / "vocab_40000.bpe").rename(tmp_path / "plain" / "merges.txt")
    for name, size in (("json", len(VOCABULARY) + 1), ("plain", len(VOCABULARY))):
        loaded = load_tokenizer(str(tmp_path / name))
        assert [PIECES[id] for id in loaded("Don't\nlow")["input_ids"]] == [
            "d",
            "o</w>",
            "n't</w>",
            "\n</w>",
            "low</w>",
        ]
        assert len(loaded) == size


def test_without_ftfy_or_spacy_it_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("ftfy", "spacy"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, library, None)
            with pytest.raises(UsageError, match=rf"{library} is not installed .*pip install 'gptkit\[gpt1\]'"):
                load_tokenizer(str(directory))


def test_the_fingerprint_knows_the_versions(tokenizer: GPT1Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    prints = [fingerprint(tokenizer)]
    for library in (ftfy, spacy):
        with monkeypatch.context() as patch:
            patch.setattr(library, "__version__", "0.1")
            prints.append(fingerprint(tokenizer))
    assert len(set(prints)) == 3


def test_a_vocabulary_that_is_not_gpt1s_is_refused() -> None:
    with pytest.raises(InputError, match="not GPT-1's vocabulary"):
        GPT1Tokenizer({"\n</w>": 0, "a</w>": 1}, [])


def test_openais_files(test_data: Path) -> None:
    tokenizer = load_tokenizer(str(test_data / "tokenizers" / "gpt1"))
    assert isinstance(tokenizer, GPT1Tokenizer)
    assert (len(tokenizer), separator_id(tokenizer)) == (40478, 40477)
    assert tokenizer("Caf\u00e9 \u2026 didn't\nvery positive negative's")["input_ids"] == [
        *[13550, 749, 626, 538, 40477, 963, 6353, 9503, 535]
    ]
    ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
    for name in ("corpora/state_union.txt", "corpora/tinyshakespeare.txt", "zero_shot/lambada_test.jsonl"):
        text = (test_data / name).read_text(encoding="utf-8")[:60_000]
        pieces = [Piece(part, 0, "") for part in cut([text])]
        ids = [id for _, found in encode_documents(tokenizer, pieces) for id in found.tolist()]
        assert ids == reference_ids(text, tokenizer.vocabulary, ranks)


@pytest.mark.parametrize("damage", [{"merges": [["a"]]}, {"merges": 3}, {"vocab": {"\n</w>": 7}}])
def test_a_damaged_tokenizer_json_is_refused(tmp_path: Path, damage: dict[str, object]) -> None:
    model = {"vocab": VOCABULARY, "merges": [list(pair) for pair in MERGES], **damage}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}), encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        load_tokenizer(str(tmp_path))
