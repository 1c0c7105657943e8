from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from gptkit.cli.main import main
from gptkit.console import Console
from gptkit.errors import InputError, UsageError
from gptkit.manage.options import TokenizerCompareOptions, TokenizerTrainOptions
from gptkit.manage.tokenizer import compare, run_compare, run_train, take
from gptkit.text.corpora import open_corpus
from gptkit.text.pieces import Piece
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.text.tokenizers.loading import fingerprint, load_tokenizer


@pytest.fixture
def console() -> Console:
    return Console(stdout=io.StringIO(), stderr=io.StringIO(), environment={})


@pytest.fixture
def book(tmp_path: Path) -> str:
    (tmp_path / "book.txt").write_text("the low lower lowest of the low\n" * 40)
    return str(tmp_path / "book.txt")


def test_a_trained_tokenizer_is_the_one_that_pretrain_trains(book: str, tmp_path: Path, console: Console) -> None:
    options = TokenizerTrainOptions(data=(book,), tokenizer="bpe:265", out=tmp_path / "new")
    facts = run_train(options, console)
    corpus = open_corpus([book], "0.1")
    expected = train_tokenizer("bpe:265", (piece.text for piece in corpus.train.pieces()))
    assert facts["sha256"] == fingerprint(expected) == fingerprint(load_tokenizer(str(tmp_path / "new")))
    assert (facts["entries"], facts["training_bytes"]) == (265, corpus.train.count_bytes())
    with pytest.raises(UsageError, match="already exists"):
        run_train(options, console)


def test_text_in_any_encoding_makes_the_same_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, found = "春天来了,\r\n花开了。\r\n" * 40, []
    for encoding in ("utf-8", "GBK", "utf-16", "utf-8-sig"):
        (tmp_path / "book.txt").write_bytes(text.encode(encoding))
        words = [str(tmp_path / "book.txt"), "-t", "char", "-o", str(tmp_path / encoding), "--json"]
        assert main(["tokenizer", "train", *words, *(["--encoding", encoding] if encoding == "GBK" else [])]) == 0
        found.append(json.loads(capsys.readouterr().out)["sha256"])
    assert len(set(found)) == 1
    assert main(["tokenizer", "train", "--encoding", "gbkk", "-o", str(tmp_path / "no"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["fix"] == "did you mean 'gbk'?"


def test_characters_are_collected_from_the_held_out_text_too(tmp_path: Path, console: Console) -> None:
    (tmp_path / "book.txt").write_text("abc " * 40 + "終", encoding="utf-8")
    options = TokenizerTrainOptions(data=(str(tmp_path / "book.txt"),), tokenizer="char", out=tmp_path / "new")
    assert run_train(options, console)["training_bytes"] == 163
    assert "終" in load_tokenizer(str(tmp_path / "new")).get_vocab()


def test_a_third_tokenizer_is_not_taken_for_a_text(book: str, console: Console) -> None:
    for third in ("char", "bpe:4096"):
        with pytest.raises(UsageError, match=f"the third argument, '{third}', names the text"):
            run_compare(TokenizerCompareOptions(first="char", second="bpe:300", data=(third,)), console)


def test_training_warns_when_the_text_is_too_little(book: str, tmp_path: Path) -> None:
    log = io.StringIO()
    console = Console(stdout=io.StringIO(), stderr=log, environment={})
    facts = run_train(TokenizerTrainOptions(data=(book,), tokenizer="bpe:9999", out=tmp_path / "new"), console)
    assert f"warning: bpe:9999: the text yields only {facts['entries']} entries" in log.getvalue()


def test_training_refuses_what_is_not_trained(tmp_path: Path, console: Console) -> None:
    with pytest.raises(UsageError, match="'gpt2-files' cannot be trained"):
        run_train(TokenizerTrainOptions(tokenizer="gpt2-files", out=tmp_path / "new"), console)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="already exists"):
        run_train(TokenizerTrainOptions(tokenizer="char", out=tmp_path / "file"), console)


def test_comparing_counts_by_hand(book: str) -> None:
    """char makes 32 tokens of a line; bytes alone as many, with other ids."""
    texts = ["the low lower lowest of the low\n"]
    char, bpe = train_tokenizer("char", texts), train_tokenizer("bpe:257", texts)
    pieces = take(open_corpus([book], "0.1").train.pieces(), 10**6)
    found = compare(char, bpe, pieces)
    assert (found["first"]["tokens"], found["second"]["tokens"]) == (found["text_bytes"], found["text_bytes"])
    assert found["first"]["tokens_per_byte"] == 1
    assert found["first"]["tokens_per_word"] == pytest.approx(32 / 7, rel=0.01)
    assert found["shared_entries"] == len(set(texts[0]) - {" "}) + 2  # the space as "", and the end of text
    assert not found["same_ids"]
    assert found["difference"] is not None
    assert (found["difference"]["token"], found["difference"]["source"]) == (0, book)
    assert found["difference"]["first_text"] == "the low " == found["difference"]["second_text"]


def test_words_are_unicode_s_and_there_may_be_none() -> None:
    char = train_tokenizer("char", ["时成和者，"])
    for text, words, per_word in (("时成和者，", 4, 5 / 4), ("，，，", 0, None)):
        found = compare(char, char, [Piece(text, 0, "x")])
        assert (found["text_words"], found["first"]["tokens_per_word"]) == (words, per_word)


def test_equal_ids_and_the_first_difference(book: str) -> None:
    pieces = take(open_corpus([book], "0.1").train.pieces(), 10**6)
    text = "the low lower lowest of the low\n" * 40
    small, same = train_tokenizer("bpe:262", [text]), train_tokenizer("bpe:262", [text])
    assert compare(small, same, pieces)["same_ids"]
    same.add_tokens(["est"])
    difference = compare(small, same, pieces)["difference"]
    assert difference is not None
    assert "est of" in difference["second_text"]


def test_the_report(book: str, console: Console) -> None:
    result = run_compare(TokenizerCompareOptions(first="char", second="bpe:260", data=(book,)), console)
    assert result["tokenizers"] == ["char", "bpe:260"]
    assert result["fewest_tokens"] == "bpe:260"
    assert result["first"]["entries"] == 13
    json.dumps(result)
    with pytest.raises(InputError, match="no such tokenizer directory"):
        run_compare(TokenizerCompareOptions(first="nowhere", second="char", data=(book,)), console)


@pytest.mark.parametrize("flag", ["--model", "--tokenizer"])
def test_encode_and_decode_suggest_only_what_they_can_read(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "encode", "hi", flag, "gpt2"]) == 2
    error = capsys.readouterr().err
    assert f"no such directory ({flag} gpt2) - check the path, or write hf:gpt2 for the hub" in error
    assert "bpe:N" not in error


def test_decode_calls_its_argument_what_the_help_calls_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "decode", "x"]) == 2
    assert "'x' is not a whole number (ID)" in capsys.readouterr().err


def test_encoding_the_name_of_a_file_says_how_to_encode_the_file(book: str, capsys: pytest.CaptureFixture[str]) -> None:
    directory = Path(book).parent / "tokenizer"
    assert main(["tokenizer", "train", book, "--tokenizer", "char", "--out", str(directory)]) == 0
    for text, is_said in ((book, True), ("low", False), ("low" * 2000, False)):
        capsys.readouterr()
        assert main(["tokenizer", "encode", text, "--tokenizer", str(directory)]) == 0
        assert (f"to read it as one text, write: - < {text}" in capsys.readouterr().err) == is_said
