"""Text that a tokenizer does not know: commands say how much of it there is, and give no bits per byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models

from generation_toy import write_model
from gptkit.cli.main import main
from gptkit.text import blocks
from gptkit.text.blocks import prepare
from gptkit.text.corpora import open_corpus
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.training.run_directory import METRICS

TRAIN, HELD_OUT = "abc дом\n" * 20, "abba д\n" * 5  # 3 of 8 characters and 1 of 7 are unknown to the model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A character model of Latin letters, and text and rows in others."""
    folder = tmp_path_factory.mktemp("unknown")
    write_model(folder / "latin", text="abc \n" * 9)
    (folder / "train.txt").write_text(TRAIN, encoding="utf-8")
    (folder / "dev.txt").write_text(HELD_OUT, encoding="utf-8")
    for split, text in (("train", "aж"), ("dev", "abжж")):
        row = {"text": text, "label": "x"}
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row | {"label": label}) for label in "xyxy"))
    (folder / "rows.yaml").write_text("format: classification\nlabels: [x, y]\n")
    return folder


def warnings(err: str) -> list[str]:
    return [line.partition(": ")[2].partition(";")[0] for line in err.splitlines() if line.startswith("warning: ")]


def test_pretraining_warns_of_both_sides_and_has_no_bits_per_byte(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [
        "pretrain",
        str(place / "train.txt"),
        "--validation",
        str(place / "dev.txt"),
        "--model",
        str(place / "latin"),
    ]
    run = ["--steps", "1", "--tokens-per-step", "24", "--out", str(tmp_path / "run")]
    assert main([*line, *run]) == 0
    out, err = capsys.readouterr()
    assert warnings(err) == [
        "the training text: 60 of 160 tokens (37.5%) are unknown to the tokenizer",
        "the validation text: 5 of 35 tokens (14.3%) are unknown to the tokenizer",
    ]
    assert err.index("gptkit tokenizer train") < err.index("step 1/1")
    reason = "n/a: 5 tokens are unknown to the tokenizer"
    assert reason in out
    assert reason in (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    row = json.loads((tmp_path / "run" / METRICS).read_text().splitlines()[-1])
    assert result["bits_per_byte"] is row["bits_per_byte"] is None
    assert result["val_loss"] == row["val_loss"] > 0
    assert result["unknown_tokens"] == {"train": 60, "validation": 5}
    assert main([*line, *run]) == 0  # a finished run shows the same
    assert reason in capsys.readouterr().out


def test_fine_tuning_and_its_evaluation_warn_of_each_split(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, model, out = str(place / "rows.yaml"), str(place / "latin"), str(tmp_path / "run")
    line = ["finetune", "--task", task, "--model", model, "--epochs", "1", "--batch-size", "2", "--warmup-steps", "0"]
    assert main([*line, "--out", out]) == 0
    dev = "8 of 24 tokens (33.3%) are unknown to the tokenizer"
    assert warnings(capsys.readouterr().err) == [
        "train: 4 of 16 tokens (25%) are unknown to the tokenizer",  # start, a, ж, extract
        f"dev: {dev}",
    ]
    assert main(["eval", "--task", task, "--model", out]) == 0
    assert warnings(capsys.readouterr().err) == [f"rows: {dev}"]


def test_comparing_tokenizers_counts_for_each(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "compare", str(place / "latin"), "bpe:257", str(place / "train.txt")]) == 0
    out, err = capsys.readouterr()
    (row,) = [line.split()[2:] for line in out.splitlines() if line.startswith("unknown tokens")]
    (warning,) = warnings(err)
    assert warning.endswith(f"latin: {row[0]} of 144 tokens (37.5%) are unknown to the tokenizer")
    assert row == ["54", "0"]
    assert err.endswith(f"next: gptkit pretrain {place / 'train.txt'} --tokenizer bpe:257\n")


WORDS = models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")
PIECES = models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0, False)


@pytest.mark.parametrize("model", [WORDS, PIECES], ids=["words", "pieces"])
def test_an_unknown_token_that_only_the_vocabulary_names_counts(
    model: models.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    assert main(["tokenizer", "encode", "д", "--tokenizer", str(tmp_path)]) == 0
    assert warnings(capsys.readouterr().err) == ["the text: 1 of 1 tokens (100%) are unknown to the tokenizer"]


def test_unknown_tokens_are_counted_without_encoding_a_cached_text_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = train_tokenizer("char", ["abc \n"])
    corpus = open_corpus([str(place / "train.txt")], str(place / "dev.txt"))
    prepare(corpus, tokenizer)
    monkeypatch.setattr(blocks, "encode_documents", lambda *_: pytest.fail("encoded again"))
    text = prepare(corpus, tokenizer)
    assert (text.train.unknown, text.validation.unknown) == (60, 5)
