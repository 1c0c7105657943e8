"""Runs and models that an earlier gptkit left, kept in tests/kept_runs (by its make.py), go on as they would have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gptkit.cli.main import main
from gptkit.model.loading import load_model
from gptkit.text.tokenizers.loading import load_tokenizer

KEPT = Path(__file__).parent / "kept_runs"
FIGURES = json.loads((KEPT / "figures.json").read_text())
PROCESSORS = 1e-3  # relative: what rounding on another processor may change in some dozens of steps


@pytest.fixture(autouse=True)
def _own_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the kept runs to the working directory, and let their config.yaml name it."""
    folder = tmp_path / "kept"
    shutil.copytree(KEPT, folder, ignore=shutil.ignore_patterns("make.py", "__pycache__"))
    for config in folder.glob("*/config.yaml"):
        config.write_text(config.read_text().replace("FOLDER", str(folder)))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "cache"))
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    found = main([*words, "--json"])
    captured = capsys.readouterr()
    assert found == code, captured.err
    result: dict[str, Any] = json.loads(captured.out)
    return result


def test_an_interrupted_pretrain_run_ends_in_the_figures_of_one_that_was_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run(capsys, "pretrain", "--resume", "interrupted-pretrain")
    assert result["resumed_from"] == 80
    assert {key: result[key] for key in FIGURES["pretrain"]} == pytest.approx(FIGURES["pretrain"], rel=PROCESSORS)
    steps = [json.loads(line)["step"] for line in Path("interrupted-pretrain/metrics.jsonl").read_text().splitlines()]
    assert steps == [1, *range(20, 161, 20)]
    snapshots = {path.name for path in Path("interrupted-pretrain/snapshots").iterdir()}
    assert snapshots == {"step-000080", "step-000160"}


def test_an_interrupted_finetune_run_ends_in_the_figures_of_one_that_was_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run(capsys, "finetune", "--resume", "interrupted-finetune")
    expected = FIGURES["finetune"]
    assert result["resumed_from"] == 10
    assert result["metrics"] == pytest.approx(expected["metrics"], abs=1 / 24)  # one example of dev
    losses = ("train_loss", "val_loss")
    assert [result[key] for key in losses] == pytest.approx([expected[key] for key in losses], rel=PROCESSORS)
    assert (result["steps"], result["tokens"]) == (expected["steps"], expected["tokens"])

    gated = run(capsys, "eval", "--model", "interrupted-finetune", "--baseline", "finetune-baseline.json")
    assert gated["verdict"] == "pass"


def test_a_finished_run_is_finished(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "pretrain", "--resume", "finished") == json.loads(Path("finished/result.json").read_text())


@pytest.mark.parametrize("compile_choice", ["auto", "off"])
def test_a_model_generates_the_tokens_that_it_generated(
    compile_choice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--greedy", "--max-new-tokens", "24", "--precision", "fp32", "--compile", compile_choice)
    result = run(capsys, "generate", "100 green bott", "--model", "finished", *words)
    assert result["samples"][0]["token_ids"] == FIGURES["greedy"]


def test_a_model_and_its_tokenizer_load() -> None:
    model, tokenizer = load_model("finished/model"), load_tokenizer("finished/model")
    assert (model.config.n_layer, model.config.n_embd, model.config.n_positions) == (2, 16, 32)
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.decode(tokenizer.encode("12 green bottles")) == "12 green bottles"


def test_a_baseline_passes_the_model_that_it_is_of_and_fails_a_worse_one(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--task", "perplexity", "--data", "held-out.jsonl", "--baseline", "perplexity-baseline.json")
    assert run(capsys, "eval", "--model", "finished", *words)["verdict"] == "pass"
    worse = run(capsys, "eval", "--model", "interrupted-pretrain", *words, code=3)
    assert worse["verdict"] == "fail"
