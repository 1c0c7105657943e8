"""`gptkit eval` without --task: the text that the model's own run held out, or why it is unknown."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from generation_toy import write_model
from gptkit.cli.main import main
from gptkit.text import embedded

TEXTS = {f"{i}.txt": "".join(f"{i * j} green bottles, hanging on wall {j};\n" for j in range(40)) for i in range(8)}
CURE = "--task perplexity --data FILE"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "cache"))
    Path("texts").mkdir()
    for name, text in TEXTS.items():
        Path("texts", name).write_text(text)


def pretrain(*words: str, out: str = "runs/own") -> dict[str, Any]:
    sizes = ("--model", "tiny", "--tokenizer", "bpe:300", "--steps", "4", "--tokens-per-step", "128")
    run = ("--sequence-length", "32", "--precision", "fp32", "--compile", "off", "--eval-every", "2", "--out", out)
    assert main(["pretrain", *words, *sizes, *run, "--json"]) == 0
    result: dict[str, Any] = json.loads(Path(out, "result.json").read_text())
    return result


def evaluate(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    found = main(["eval", *words, "--json"])
    captured = capsys.readouterr()
    assert found == code, captured.err
    result: dict[str, Any] = json.loads(captured.out)
    return result


@pytest.mark.parametrize("words", [("texts",), ("texts/1.txt",), ("texts", "--validation", "texts/3.txt"), ()])
def test_a_run_s_own_text_gives_the_run_s_own_figures(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "embedded_texts", lambda: [*TEXTS.items()])
    ours = pretrain(*words)
    results = evaluate(capsys)["results"]
    found = {name: figures["value"] for name, figures in results["perplexity/validation"]["metrics"].items()}
    assert math.log(found["token_perplexity"]) == pytest.approx(ours["val_loss"], abs=1e-4)
    assert found["bits_per_byte"] == pytest.approx(ours["bits_per_byte"], abs=1e-4)
    assert results.keys() == {f"perplexity/{name}" for name in ("validation", "sliding", "sliding-half", "documents")}
    assert evaluate(capsys, "--task", "perplexity")["results"] == results
    (own,) = evaluate(capsys, "--task", "perplexity/validation")["results"].values()
    for name, figures in own["metrics"].items():  # in other batches, whose last bits may differ
        assert figures["value"] == pytest.approx(found[name], rel=1e-5), name
    # The second protocol's windows are longer, so its figure is another, and the first token counts.
    longer = results["perplexity/sliding"]["metrics"]["token_perplexity"]["value"]
    assert longer == pytest.approx(found["token_perplexity"], rel=0.05)
    assert longer != found["token_perplexity"]


def test_every_step_of_a_run_is_scored_on_its_text_as_when_it_was_trained(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain("texts")
    rows = [json.loads(line) for line in Path("runs/own/metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["val_loss"] for row in rows if "val_loss" in row}
    found = evaluate(capsys, "--all-checkpoints", "runs/own")["checkpoints"]
    own = {
        one["step"]: one["results"]["perplexity/validation"]["metrics"]["token_perplexity"]["value"] for one in found
    }
    assert own.keys() >= {2, 4}
    assert {step: math.log(own[step]) for step in losses} == pytest.approx(losses, abs=1e-4)
    Path("runs/own/result.json").unlink()  # an unfinished run: its checkpoints hold the text's hashes
    shutil.rmtree("runs/own/model")
    assert evaluate(capsys, "--model", "runs/own")["results"].keys() == found[-1]["results"].keys()
    Path("texts/2.txt").write_text("other")
    assert "data_sha256" in evaluate(capsys, "--model", "runs/own", code=2)["error"]["message"]


def test_a_gate_compares_the_own_text_and_refuses_another_s(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain("texts")
    evaluate(capsys, "--output", "baseline.json")
    assert evaluate(capsys, "--baseline", "baseline.json")["verdict"] == "pass"
    Path("other.txt").write_text("Some other text.\n" * 40)
    pretrain("other.txt", out="runs/other")
    error = evaluate(capsys, "--model", "runs/other", "--baseline", "baseline.json", code=4)["error"]
    assert "different data" in error["message"]
    evaluate(capsys, "--task", "perplexity", "--data", "other.txt", "--output", "other.json")
    assert "different data" in evaluate(capsys, "--baseline", "other.json", code=4)["error"]["message"]
    assert [*evaluate(capsys, "--stride", "16")["results"]] == ["perplexity/sliding-16"]
    assert evaluate(capsys, "--limit", "1")["results"]["perplexity/validation"]["n"] == 1


def test_a_model_whose_text_is_unknown_is_scored_on_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    def refused(model: str) -> str:
        error = evaluate(capsys, "--model", model, code=2)["error"]
        assert CURE in error["fix"]
        assert evaluate(capsys, "--model", model, "--task", "perplexity", code=2)["error"] == error
        return str(error["message"])

    pretrain("texts")
    shutil.copytree("runs/own/model", "copied")
    write_model(Path("elsewhere/model"), "bpe:300")
    assert main(["convert", "runs/own/model", "exported", "--to", "hf"]) == 0
    for model in ("copied", "elsewhere/model", "exported"):
        assert "no config.yaml of that run" in refused(model)
    shutil.copytree("runs/own", "moved")  # its config.yaml names the text by its absolute path
    assert evaluate(capsys, "--model", "moved/model")["results"]
    Path("texts/2.txt").write_text(TEXTS["2.txt"].upper())
    assert "is not what" in refused("moved")
    shutil.rmtree("texts")
    assert "cannot be read: file not found" in refused("runs/own")
    Path("runs/own/config.yaml").write_text("model: tiny\n")
    assert "no config.yaml of that run" in refused("runs/own")


def test_the_protocol_of_a_run_s_own_text_is_for_no_other_text(capsys: pytest.CaptureFixture[str]) -> None:
    write_model(Path("model"), "bpe:300")
    text = ("--model", "model", "--data", "texts/1.txt")
    assert "perplexity/validation" not in evaluate(capsys, *text)["results"]
    error = evaluate(capsys, *text, "--task", "perplexity/validation", code=2)["error"]
    assert (error["where"], error["fix"]) == ("--data", "leave it out, or pass --task perplexity")


def test_a_split_is_refused_where_no_task_has_splits(capsys: pytest.CaptureFixture[str]) -> None:
    write_model(Path("model"), "bpe:300")
    words = ("--model", "model", "--task", "perplexity", "--data", "texts/1.txt", "--split", "test")
    error = evaluate(capsys, *words, code=2)["error"]
    assert error["where"] == "--split"
    assert error["message"] == "perplexity is evaluated zero-shot, without a choice of splits"


def test_a_python_with_other_documentation_is_not_the_run_s(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "embedded_texts", lambda: [*TEXTS.items()])
    pretrain()
    monkeypatch.setattr(embedded, "embedded_texts", lambda: [*TEXTS.items()][1:])
    assert "restore the Python of that run" in evaluate(capsys, code=2)["error"]["fix"]


def test_the_own_text_is_read_in_the_encoding_that_the_run_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    Path("river.txt").write_text("春江潮水连海平，海上明月共潮生。\n" * 60, encoding="gb18030")
    ours = pretrain("river.txt", "--encoding", "gb18030")
    metrics = evaluate(capsys)["results"]["perplexity/validation"]["metrics"]
    assert math.log(metrics["token_perplexity"]["value"]) == pytest.approx(ours["val_loss"], abs=1e-4)
    assert metrics["bits_per_byte"]["value"] == pytest.approx(ours["bits_per_byte"], abs=1e-4)


def test_tokenizers_are_compared_on_the_text_of_the_run_among_them(capsys: pytest.CaptureFixture[str]) -> None:
    Path("river.txt").write_text("春江潮水连海平，海上明月共潮生。\n" * 60, encoding="gb18030")
    pretrain("river.txt", "--encoding", "gb18030")
    for spec in ("runs/own", "runs/own/model"):
        capsys.readouterr()
        assert main(["tokenizer", "compare", "char", spec]) == 0
        captured = capsys.readouterr()
        assert "on the training text of" in captured.err
        [entries] = [line.split() for line in captured.out.splitlines() if line.startswith("entries")]
        assert entries[1] == "17"  # 15 characters and two special tokens
        assert f"pretrain {Path('river.txt').absolute()} --encoding gb18030 --tokenizer" in captured.err
    Path("river.txt").unlink()
    assert main(["tokenizer", "compare", "char", "runs/own"]) == 2
    assert "pass a text: gptkit tokenizer compare A B FILE" in capsys.readouterr().err


def test_running_text_stands_beside_what_a_model_without_learning_gets(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain("texts/1.txt")
    Path("text.txt").write_text("aabc" * 4)  # frequencies of 1/2, 1/4, 1/4: 1.5 bits
    capsys.readouterr()
    assert main(["eval", "--task", "perplexity", "--data", "text.txt"]) == 0
    chance = {line.split("  ")[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines() if line}
    assert (chance["bits per byte"], chance["bits per character"]) == ("1.5000", "1.5000")
    assert float(chance["token perplexity"]) == json.loads(Path("runs/own/model/config.json").read_text())["vocab_size"]


def test_figures_without_a_chance_level_are_drawn_along_the_run_too(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain("texts/1.txt")
    result = evaluate(capsys, "--all-checkpoints", "runs/own")
    assert Path(result["picture"]).is_file()
    assert "normalised" not in result


def test_a_corpus_that_contains_the_evaluated_file_is_no_surprise(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain("texts/1.txt")
    for corpus, is_itself in (("texts/1.txt", True), ("texts", True), ("texts/2.txt", False)):
        capsys.readouterr()
        assert main(["eval", "--contamination", corpus]) == 0
        assert ("1.txt is itself in the corpus" in capsys.readouterr().err) == is_itself
