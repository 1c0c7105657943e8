from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from gptkit.data.corpora import Corpus, open_corpus
from gptkit.data.pieces import Piece
from gptkit.errors import InputError, UsageError


def documents(pieces: Iterable[Piece]) -> list[str]:
    joined: dict[int, str] = {}
    for piece in pieces:
        joined[piece.document] = joined.get(piece.document, "") + piece.text
    return list(joined.values())


def sides(corpus: Corpus) -> tuple[list[str], list[str]]:
    return documents(corpus.train_pieces()), documents(corpus.validation_pieces())


def write_rows(path: Path, texts: Iterable[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def test_one_document_is_cut_once_and_the_log_says_so(tmp_path: Path) -> None:
    text = "".join(f"caf\u00e9 number {i}\n" for i in range(20_000))
    (tmp_path / "book.txt").write_text(text)
    corpus = open_corpus([str(tmp_path / "book.txt")], "0.1")
    cut = int(len(text) * 0.9)
    assert sides(corpus) == ([text[:cut]], [text[cut:]])
    assert sides(corpus) == sides(corpus)  # it can be read again
    assert (corpus.train_bytes, corpus.validation_bytes) == (len(text[:cut].encode()), len(text[cut:].encode()))
    assert corpus.data_sha256 == hashlib.sha256(hashlib.sha256(text.encode()).digest()).hexdigest()
    assert corpus.notes == (
        f"one document: cut once, the first {cut:,} characters train, the last {len(text) - cut:,} validate",
    )


def test_copies_of_one_document_are_cut_where_one_would_be(tmp_path: Path) -> None:
    corpus = open_corpus([write_rows(tmp_path / "rows.jsonl", ["0123456789"] * 3)], "0.2")
    assert sides(corpus) == (["01234567"] * 3, ["89"])
    assert (corpus.train_bytes, corpus.validation_bytes) == (24, 2)


def test_documents_are_held_out_whole_and_duplicates_never_straddle(tmp_path: Path) -> None:
    texts = [f"document {i % 700}" for i in range(1000)]
    corpus = open_corpus([write_rows(tmp_path / "rows.jsonl", texts)], "0.1")
    train, validation = sides(corpus)
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted(texts)
    assert [text for text in texts if text in set(train)] == train
    assert 0.06 < len(set(validation)) / 700 < 0.14
    assert corpus.validation_bytes == len("".join(validation))
    others = [*texts, *(f"other {i}" for i in range(300))]
    wider = open_corpus([write_rows(tmp_path / "more.jsonl", others)], "0.1")
    assert set(validation) <= set(sides(wider)[1])  # a side depends on the text alone


def test_all_kinds_of_files_together(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"two"))
    write_rows(tmp_path / "c.jsonl", ["three", " ", "four"])
    (tmp_path / "d.txt").write_text("\n")
    corpus = open_corpus([str(tmp_path)], "0.5")
    train, validation = sides(corpus)
    assert sorted(train + validation) == ["four", "one", "three", "two"]
    assert "left out 2 blank document(s)" in corpus.notes
    assert corpus.sources == (str(tmp_path),)
    assert corpus.data_sha256 == open_corpus([f"{tmp_path}/*.*"], "0.2").data_sha256


def test_validation_from_a_file_never_trains(tmp_path: Path) -> None:
    for name in ("a", "b", "held"):
        (tmp_path / f"{name}.txt").write_text(f"text of {name}")
    corpus = open_corpus([str(tmp_path)], str(tmp_path / "held.txt"))
    assert sides(corpus) == (["text of a", "text of b"], ["text of held"])
    assert corpus.validation_source == str(tmp_path / "held.txt")
    with pytest.raises(InputError, match="nothing to train on"):
        open_corpus([str(tmp_path / "held.txt")], str(tmp_path / "held.txt"))


def test_equal_keys_mean_equal_text(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [f"document {i}" for i in range(50)])
    narrow, wide, again = (open_corpus([rows], fraction) for fraction in ("0.1", "0.5", "0.50"))
    assert wide.train.key == again.train.key != narrow.train.key
    assert len({wide.train.key, wide.validation.key, narrow.validation.key}) == 3


def test_what_holds_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text enough")
    for name, content in (("b.txt", ""), ("c.txt", " \n\t\n"), ("d.jsonl", '{"text": ""}\n'), ("e.jsonl", "")):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match="no text in this file") as refusal:
            open_corpus([str(tmp_path / "a.txt"), str(tmp_path / name)], "0.1")
        assert refusal.value.where == str(tmp_path / name)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InputError, match="only empty files"):
        open_corpus([str(tmp_path)], "0.1")


def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="cannot be cut"):
        open_corpus([str(tmp_path / "a.txt")], "0.1")
    with pytest.raises(UsageError, match="neither a fraction"):
        open_corpus([str(tmp_path / "a.txt")], "10%")
    with pytest.raises(UsageError, match="not between 0 and 1"):
        open_corpus([str(tmp_path / "a.txt")], "1")


def test_text_that_grows_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", ["a", "b"])
    corpus = open_corpus([rows], "0.5")
    write_rows(tmp_path / "rows.jsonl", ["a", "b", "c"])
    with pytest.raises(InputError, match="changed while it was read"):
        list(corpus.train_pieces())


@pytest.mark.skipif("GPTKIT_TEST_DATA" not in os.environ, reason="needs GPTKIT_TEST_DATA")
def test_tiny_shakespeare_is_cut_as_by_nanogpt() -> None:
    path = Path(os.environ["GPTKIT_TEST_DATA"]) / "corpora" / "tinyshakespeare.txt"
    text = path.read_text()
    assert sides(open_corpus([str(path)], "0.1")) == ([text[: int(len(text) * 0.9)]], [text[int(len(text) * 0.9) :]])
