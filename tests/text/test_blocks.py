from __future__ import annotations

import errno
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptkit.errors import InputError, OutOfResources
from gptkit.system.files import HashedFile
from gptkit.text import blocks as token_blocks
from gptkit.text.blocks import TrainingBlocks, open_stream, prepare, validation_windows
from gptkit.text.corpora import open_corpus
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.text.tokenizers.kinds import train_tokenizer

WORDS = ["caf\u00e9", "don't", "  two", "a\nb", "\n\n", "x\t", "1,234", "\U0001f600", "word."]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


@pytest.fixture(autouse=True)
def small_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_blocks, "_TOKENS_A_WRITE", 1 << 10)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer("bpe:512", [" ".join(WORDS) * 20])


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
        assert (stream.documents, stream.utf8_bytes) == (len(documents), part.utf8_bytes)
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
    assert np.array_equal(open_stream(first.train.path).ids, first.train.ids)
    prepare(corpus, train_tokenizer("bpe:300", WORDS))
    prepare(open_corpus([rows], "0.5"), tokenizer)
    assert len(list(own_cache.iterdir())) == 12


def test_progress_counts_all_bytes(rows: str, tokenizer: Any) -> None:
    seen: list[tuple[int, int]] = []
    corpus = open_corpus([rows], "0.1")
    token_blocks.token_stream(corpus.train, tokenizer, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (corpus.train_bytes, corpus.train_bytes)
    assert len(seen) > 1


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
