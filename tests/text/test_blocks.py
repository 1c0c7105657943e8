from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptkit.errors import InputError, OutOfResources
from gptkit.system.files import HashedFile
from gptkit.text import blocks as token_blocks
from gptkit.text.blocks import TrainingBlocks, prepare, token_stream, validation_windows
from gptkit.text.corpora import open_corpus
from gptkit.text.pieces import Piece
from gptkit.text.readers import read_pieces
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.text.tokenizers.loading import cached_tokenizer

WORDS = ["caf\u00e9", "don't", "  two", "a\nb", "\n\n", "x\t", "1,234", "\U0001f600", "word."]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


@pytest.fixture(autouse=True)
def small_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_blocks, "_BYTES_PER_WRITE", 1 << 11)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer("bpe:512", [" ".join(WORDS) * 20])


@pytest.fixture(scope="module")
def gpt1() -> Any:
    letters = "abcdemnortdl'"
    pieces = ["<unk>", *letters, *(letter + "</w>" for letter in letters), "\n</w>"]
    return GPT1Tokenizer({piece: id for id, piece in enumerate(dict.fromkeys(pieces))}, [])


@pytest.fixture
def rows(tmp_path: Path) -> str:
    """A corpus of a hundred documents, one of them longer than a piece."""
    texts = [" ".join(itertools.islice(itertools.cycle(WORDS), i, 40_000 if i == 54 else 2 * i)) for i in range(1, 101)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(tmp_path / "rows.jsonl")


def test_tokens_are_those_of_the_documents_with_separators_between(rows: str, tokenizer: Any) -> None:
    corpus = open_corpus([rows], "0.1")
    text = prepare(corpus, tokenizer)
    for stream, part in ((text.train, corpus.train), (text.validation, corpus.validation)):
        documents = [
            "".join(p.text for p in same) for _, same in itertools.groupby(part.pieces(), lambda p: p.document)
        ]
        expected: list[int] = []
        for document in documents:
            expected += [separator_id(tokenizer)] * bool(expected)
            expected += tokenizer(document, add_special_tokens=False)["input_ids"]
        assert stream.ids.tolist() == expected
        assert (len(documents), stream.utf8_bytes) == (part.documents, part.about_bytes)
        assert stream.ids.dtype == np.uint16
    assert max(len(piece.text) for piece in corpus.train.pieces()) < 70_000


def test_the_cache_is_used_and_its_name_depends_on_text_and_tokenizer(
    rows: str, tokenizer: Any, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = open_corpus([rows], "0.1")
    first = prepare(corpus, tokenizer)
    assert len(list(own_cache.iterdir())) == 4
    with monkeypatch.context() as patch:
        patch.setattr(token_blocks, "encode_documents", None)
        assert np.array_equal(prepare(corpus, tokenizer).train.ids, first.train.ids)
    prepare(corpus, train_tokenizer("bpe:300", WORDS))
    prepare(open_corpus([rows], "0.5"), tokenizer)
    assert len(list(own_cache.iterdir())) == 12


def test_the_text_is_read_three_times_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once to see what there is, once for the tokenizer, once for the tokens of both sides."""
    (tmp_path / "book.txt").write_text(" ".join(WORDS * 20_000))
    opened: list[Path] = []

    def counting(path: Path) -> Iterator[Piece]:
        opened.append(path)
        return read_pieces(path)

    monkeypatch.setattr("gptkit.text.corpora.read_pieces", counting)
    corpus = open_corpus([str(tmp_path / "book.txt")], "0.1")
    trained, _ = cached_tokenizer("bpe:300", corpus.train)
    prepare(corpus, trained)
    assert len(opened) == 3
    prepare(corpus, cached_tokenizer("bpe:300", corpus.train)[0])
    assert len(opened) == 3


TEXTS = st.lists(
    st.lists(
        st.sampled_from(["a", "b c", "\u00e9", "\r\n", "\n", " ", "don't\r\n and more", "<b>&amp;"]),
        min_size=1,
        max_size=9,
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60)
@given(TEXTS, st.booleans(), st.floats(0.05, 0.9))
def test_both_sides_at_once_have_the_tokens_of_each_alone(
    tmp_path_factory: pytest.TempPathFactory,
    gpt1: Any,
    tokenizer: Any,
    texts: list[list[str]],
    copies: bool,
    held_out: float,
) -> None:
    folder = tmp_path_factory.mktemp("texts")
    joined = ["".join(words) for words in texts]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in joined * (1 + copies)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gptkit.text.pieces.TARGET_CHARACTERS", 5)
        patch.setattr("gptkit.text.pieces.LIMIT_CHARACTERS", 40)
        patch.setenv("GPTKIT_CACHE", str(folder / "both"))
        try:
            corpus = open_corpus([str(path)], str(held_out))
        except InputError:  # too little to be divided
            return
        char = train_tokenizer("char", joined)
        for any_tokenizer in (char, tokenizer, gpt1):
            patch.setenv("GPTKIT_CACHE", str(folder / "both"))
            together = token_blocks._token_streams([corpus.train, corpus.validation], corpus.both, any_tokenizer)
            patch.setenv("GPTKIT_CACHE", str(folder / "each"))
            for stream, side in zip(together, (corpus.train, corpus.validation), strict=True):
                alone = token_stream(side, any_tokenizer)
                assert stream.ids.tolist() == alone.ids.tolist()
                assert stream.path.name == alone.path.name
                assert stream.utf8_bytes == alone.utf8_bytes == side.count_bytes()


def test_a_cut_text_is_counted_exactly(tmp_path: Path, tokenizer: Any) -> None:
    text = "".join(f"caf\u00e9 {i}\r\n" for i in range(900))
    path = tmp_path / "rows.jsonl"
    for copies in (1, 3):
        path.write_text((json.dumps({"text": text}) + "\n") * copies)
        corpus = open_corpus([str(path)], "0.2")
        prepared = prepare(corpus, tokenizer)
        for stream, side in ((prepared.train, corpus.train), (prepared.validation, corpus.validation)):
            exact = sum(len(piece.text.encode()) for piece in side.pieces())
            assert stream.utf8_bytes == side.count_bytes() == exact == pytest.approx(side.about_bytes, abs=9 * copies)


def test_a_full_disk_names_path_and_need(
    rows: str, tokenizer: Any, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(open_corpus([rows], "0.1"), tokenizer)
    size = whole.train.ids.nbytes
    for path in own_cache.iterdir():
        path.unlink()
    write = HashedFile.write

    def filling(self: HashedFile, data: Any) -> None:
        if self.size > size // 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    monkeypatch.setattr(HashedFile, "write", filling)
    with pytest.raises(OutOfResources, match="needs about") as refusal:
        prepare(open_corpus([rows], "0.1"), tokenizer)
    assert str(own_cache) in (refusal.value.where or "")
    needed = float(str(refusal.value).split("needs about ")[1].split(" kB")[0])
    assert size / 1000 <= needed <= 3 * size / 1000
    assert list(own_cache.iterdir()) == []


def test_text_that_changes_while_it_is_read_is_not_cached(rows: str, tokenizer: Any, own_cache: Path) -> None:
    corpus = open_corpus([rows], "0.1")
    Path(rows).write_text(Path(rows).read_text().replace("word", "sword"))
    with pytest.raises(InputError, match="changed while it was read"):
        prepare(corpus, tokenizer)
    assert list(own_cache.iterdir()) == []


STREAMS = st.integers(2, 300).map(lambda n: np.arange(n, dtype=np.uint16))


@given(STREAMS, st.integers(1, 40))
def test_windows_predict_each_token_but_the_first_once(tokens: np.ndarray, sequence_length: int) -> None:
    windows = list(validation_windows(tokens, sequence_length))
    assert np.concatenate([window[1:] for window in windows]).tolist() == tokens[1:].tolist()
    assert np.concatenate([window[:-1] for window in windows]).tolist() == tokens[:-1].tolist()
    assert all(len(window) == sequence_length + 1 for window in windows[:-1])
    assert windows[0].dtype == np.int64


@given(STREAMS, st.integers(1, 40), st.integers(0, 2**31 - 1), st.integers(0, 9))
def test_an_epoch_has_disjoint_blocks_of_one_shifted_grid(
    tokens: np.ndarray, sequence_length: int, seed: int, epoch: int
) -> None:
    if len(tokens) <= sequence_length:
        with pytest.raises(InputError, match=f"{len(tokens)} tokens, fewer than one block of {sequence_length + 1}"):
            TrainingBlocks(tokens, sequence_length, seed)
        return
    blocks = TrainingBlocks(tokens, sequence_length, seed)
    rows = blocks.rows(epoch * blocks.blocks_per_epoch, blocks.blocks_per_epoch)
    starts = sorted(rows[:, 0].tolist())
    assert [later - earlier for earlier, later in itertools.pairwise(starts)] == [sequence_length] * (len(starts) - 1)
    assert np.array_equal(rows - rows[:, :1], np.tile(np.arange(sequence_length + 1), (len(rows), 1)))
    assert len(tokens) - 1 - blocks.blocks_per_epoch * sequence_length < 2 * sequence_length


@given(st.integers(0, 500), st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 2**31 - 1))
def test_rows_are_the_same_however_they_are_asked_for(first_row: int, counts: list[int], seed: int) -> None:
    tokens = np.arange(1000, dtype=np.uint32)
    rows = TrainingBlocks(tokens, 16, seed).rows(first_row, sum(counts))
    firsts = itertools.accumulate(counts, initial=first_row)
    parts = [TrainingBlocks(tokens, 16, seed).rows(first, n) for first, n in zip(firsts, counts, strict=False)]
    assert rows.dtype == np.int64
    assert np.array_equal(rows, np.concatenate(parts))


def test_each_epoch_shifts_and_shuffles() -> None:
    blocks = TrainingBlocks(np.arange(10_000, dtype=np.uint16), 64, seed=1)
    epochs = [blocks.rows(epoch * blocks.blocks_per_epoch, blocks.blocks_per_epoch) for epoch in range(20)]
    assert len({tuple(rows[:, 0]) for rows in epochs}) == 20
    assert len({min(rows[:, 0]) for rows in epochs}) > 10
