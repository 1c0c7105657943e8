from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptkit.errors import InputError, UsageError
from gptkit.text.corpora import Corpus, open_corpus
from gptkit.text.pieces import Piece


def documents(pieces: Iterable[Piece]) -> list[str]:
    joined: dict[int, str] = {}
    for piece in pieces:
        joined[piece.document] = joined.get(piece.document, "") + piece.text
    return list(joined.values())


def sides(corpus: Corpus) -> tuple[list[str], list[str]]:
    return documents(corpus.train.pieces()), documents(corpus.validation.pieces())


def exact_bytes(corpus: Corpus) -> tuple[int, int]:
    return corpus.train.count_bytes(), corpus.validation.count_bytes()


def share_of(corpus: Corpus) -> float:
    train, validation = exact_bytes(corpus)
    return validation / (train + validation)


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
    assert exact_bytes(corpus) == (len(text[:cut].encode()), len(text[cut:].encode()))
    assert corpus.train.about_bytes == pytest.approx(len(text[:cut].encode()), abs=10)
    assert corpus.data_sha256 == hashlib.sha256(hashlib.sha256(text.encode()).digest()).hexdigest()
    assert corpus.notes == (
        f"one document: cut once, its first {cut:,} characters for training, the rest for validation",
        "training text: 332 kB in 1 document(s); validation: 37 kB in 1 (10.0% of the text)",
    )


def test_copies_of_one_document_are_cut_where_one_would_be(tmp_path: Path) -> None:
    corpus = open_corpus([write_rows(tmp_path / "rows.jsonl", ["0123456789"] * 3)], "0.2")
    assert sides(corpus) == (["01234567"] * 3, ["89"])
    assert exact_bytes(corpus) == (corpus.train.about_bytes, corpus.validation.about_bytes) == (24, 2)


def normal(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def test_near_copies_of_one_document_are_cut_at_the_same_place(tmp_path: Path) -> None:
    text = "".join(f"line {i}\n" for i in range(100))
    copies = [text, text.replace("\n", "\r\n"), f"\n\u3000\r\n{text}   "]
    corpus = open_corpus([write_rows(tmp_path / "rows.jsonl", copies)], "0.2")
    train, validation = sides(corpus)
    assert [normal(head) for head in train] == [normal(text[: int(len(text) * 0.8)])] * 3
    assert validation == [text[int(len(text) * 0.8) :]]
    assert exact_bytes(corpus) == (len("".join(train).encode()), len(validation[0]))


def test_of_a_book_and_a_note_the_end_of_the_book_validates(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("a line of the book\n" * 10_000)
    (tmp_path / "note.txt").write_text("a line of the note\n" * 100)
    corpus = open_corpus([str(tmp_path)], "0.1")
    train, validation = sides(corpus)
    assert (len(train), len(validation)) == (1, 2)
    assert train[0] + validation[0] == (tmp_path / "book.txt").read_text()
    assert share_of(corpus) == pytest.approx(0.1, abs=1e-4)
    note = f"whole documents would hold out only 1.0%, so the longest one ({tmp_path}/book.txt) is cut once"
    assert corpus.notes[0].startswith(note)


def test_a_fraction_that_no_document_fits_is_told(tmp_path: Path) -> None:
    corpus = open_corpus([write_rows(tmp_path / "rows.jsonl", [f"{i:090}" for i in range(11)])], "0.1")
    assert corpus.notes == (
        "validation is smaller than requested: one more document would exceed 15.0% of the text",
        "training text: 1 kB in 10 document(s); validation: 1 kB in 1 (9.1% of the text)",
    )


WORDS = st.sampled_from(["a", "b c", "\u00e9", "\r\n", "\n", " ", "\u3000", "the same longer line\r\nand another"])


@given(st.lists(st.lists(WORDS, max_size=4).map("".join), min_size=1, max_size=9), st.floats(0.01, 0.9), st.data())
def test_sides_share_no_text_and_depend_on_it_alone(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], fraction: float, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("texts")
    longest = max(len(normal(text)) for text in texts)

    def opened(name: str, files: list[list[str]]) -> Corpus | None:
        (folder / name).mkdir()
        for number, rows in enumerate(files):
            write_rows(folder / name / f"{number}.jsonl", rows)
        try:
            return open_corpus([str(folder / name)], str(fraction))
        except InputError:
            assert longest < 2
            return None

    corpus = opened("first", [texts])
    shuffled = data.draw(st.permutations(texts))
    at = data.draw(st.integers(0, len(texts)))
    again = opened("second", [shuffled[:at], shuffled[at:]])
    if corpus is None or again is None:
        assert corpus is again
        return
    train, validation = ([normal(text) for text in side] for side in sides(corpus))
    assert [sorted(map(normal, side)) for side in sides(again)] == [sorted(train), sorted(validation)]
    assert min(len(train), len(validation)) > 0
    assert all(train + validation)
    notes = "\n".join(corpus.notes)
    share = share_of(corpus)
    if "cut once" in notes:
        assert not set(train) & set(validation) & {normal(text) for text in texts if len(normal(text)) == longest}
        return
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted(normal(text) for text in texts if normal(text))
    assert share <= fraction + min(fraction, 1 - fraction) / 2
    assert share >= fraction or "one more document would exceed" in notes


def test_documents_are_held_out_whole_and_duplicates_never_straddle(tmp_path: Path) -> None:
    texts = [f"document {i % 700}" for i in range(1000)]
    corpus = open_corpus([write_rows(tmp_path / "rows.jsonl", texts)], "0.1")
    train, validation = sides(corpus)
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted(texts)
    assert [text for text in texts if text in set(train)] == train
    assert corpus.validation.about_bytes == len("".join(validation)) == pytest.approx(len("".join(texts)) / 10, abs=24)
    assert corpus.notes[0].startswith("300 of 1,000 document(s) are copies")


def test_all_kinds_of_files_together(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"two"))
    write_rows(tmp_path / "c.jsonl", ["three", " ", "four"])
    (tmp_path / "d.txt").write_text("\n")
    corpus = open_corpus([str(tmp_path)], "0.5")
    train, validation = sides(corpus)
    assert sorted(train + validation) == ["four", "one", "three", "two"]
    assert "left out 2 blank document(s)" in corpus.notes
    assert corpus.data_sha256 == open_corpus([f"{tmp_path}/*.*"], "0.2").data_sha256


def test_validation_from_a_file_never_trains(tmp_path: Path) -> None:
    for name in ("a", "b", "held"):
        (tmp_path / f"{name}.txt").write_text(f"text of {name}")
    corpus = open_corpus([str(tmp_path)], str(tmp_path / "held.txt"))
    assert sides(corpus) == (["text of a", "text of b"], ["text of held"])
    assert corpus.notes[0] == "left out 1 training document(s) that are also in the validation text"
    with pytest.raises(InputError, match="nothing to train on"):
        open_corpus([str(tmp_path / "held.txt")], str(tmp_path / "held.txt"))


def test_copies_of_the_validation_text_never_train_whatever_file_they_stand_in(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    held = ["first\nof two", "second"]
    write_rows(tmp_path / "held.jsonl", held)
    (data / "a.txt").write_bytes(b"\xef\xbb\xbf\r\nfirst\r\nof two\r\n")
    (data / "b.txt.gz").write_bytes(gzip.compress(b"second \n"))
    write_rows(data / "c.jsonl", ["  second", "other", "first\rof two", "first of two"])
    pq.write_table(pa.table({"text": ["second", "third"]}), data / "d.parquet")
    corpus = open_corpus([str(data)], str(tmp_path / "held.jsonl"))
    assert sides(corpus) == (["other", "first of two", "third"], held)
    assert "left out 5 training document(s) that are also in the validation text" in corpus.notes
    (tmp_path / "copy.txt").write_text("second\n")
    with pytest.raises(InputError, match="nothing to train on"):
        open_corpus([str(tmp_path / "copy.txt")], str(tmp_path / "held.jsonl"))


def test_equal_keys_mean_equal_text(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [f"document {i}" for i in range(50)])
    narrow, wide, again = (open_corpus([rows], fraction) for fraction in ("0.1", "0.5", "0.50"))
    assert wide.train.key == again.train.key != narrow.train.key
    assert len({wide.train.key, wide.validation.key, narrow.validation.key}) == 3
    assert wide.split_sha256 == again.split_sha256 != narrow.split_sha256
    texts = [write_rows(tmp_path / f"{len(rows)}.jsonl", rows) for rows in (["a", "b", "c"], [" ", "a", "b", "c"])]
    held = [write_rows(tmp_path / f"held-{name}.jsonl", [name]) for name in "bc"]
    first, second = (open_corpus([text], name) for text, name in zip(texts, held, strict=True))
    assert (sides(first)[0], sides(second)[0]) == (["a", "c"], ["a", "b"])
    assert first.train.key != second.train.key


def test_what_holds_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text enough")
    for name, content in (("b.txt", ""), ("c.txt", " \n\t\n"), ("d.jsonl", '{"text": ""}\n'), ("e.jsonl", "")):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match="no text in this file") as refusal:
            open_corpus([str(tmp_path / "a.txt"), str(tmp_path / name)], "0.1")
        assert refusal.value.where == str(tmp_path / name)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InputError, match="all files are empty"):
        open_corpus([str(tmp_path)], "0.1")


def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="cannot be split"):
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
        list(corpus.train.pieces())


@pytest.mark.skipif("GPTKIT_TEST_DATA" not in os.environ, reason="needs GPTKIT_TEST_DATA")
def test_tiny_shakespeare_is_cut_as_by_nanogpt() -> None:
    path = Path(os.environ["GPTKIT_TEST_DATA"]) / "corpora" / "tinyshakespeare.txt"
    text = path.read_text()
    assert sides(open_corpus([str(path)], "0.1")) == ([text[: int(len(text) * 0.9)]], [text[int(len(text) * 0.9) :]])
