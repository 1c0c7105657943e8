"""A cold `gptkit generate` on a CPU loads neither torch nor transformers, and says what torch would say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptkit.cli.main import main
from gptkit.decoding import native

HEAVY = {"torch", "transformers", "rich"}


def cold(model: Path, *arguments: str) -> tuple[dict[str, Any], set[str]]:
    """Return the result of a process of its own, and the packages that it imported."""
    command = [sys.executable, "-X", "importtime", "-m", "gptkit", "generate", *arguments]
    command += ["--model", str(model), "--device", "cpu", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return json.loads(done.stdout), {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_a_cold_process_imports_neither_torch_nor_transformers(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["hear", "--greedy", "--max-new-tokens", "60"]
    result, imported = cold(model_folder, *arguments)
    assert "numpy" in imported
    assert not HEAVY & imported
    monkeypatch.setattr(native, "choose_engine", None)  # what is off must not be asked
    options = ["--model", str(model_folder), "--device", "cpu", "--json", "--compile", "off"]
    assert main(["generate", *arguments, *options]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == result["samples"]


def test_nor_does_an_unfinished_run(model_folder: Path, tmp_path: Path) -> None:
    from generation_toy import unfinished_run  # late: it imports torch

    run = unfinished_run(tmp_path / "run", model_folder, step=7)
    result, imported = cold(run, "hear", "--greedy", "--max-new-tokens", "60")
    assert result["model"] == str(run / "snapshots" / "step-000007")
    assert result["samples"] == cold(model_folder, "hear", "--greedy", "--max-new-tokens", "60")[0]["samples"]
    assert not HEAVY & imported


def test_nor_do_the_rules_the_reports_and_files_of_prompts(model_folder: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("hear\nFirst\n")
    rules = ["--top-k", "9", "--top-p", "0.9", "--temperature", "2", "--repetition-penalty", "1.2", "--stop", "zz"]
    result, imported = cold(model_folder, "--prompts", str(prompts), *rules, "--quantize", "int4", "--show-probs")
    assert [sample["prompt"] for sample in result["samples"]] == ["hear", "First"]
    assert not HEAVY & imported


def test_a_finished_file_of_prompts_imports_no_torch_even_where_torch_wrote_it(
    model_folder: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("hear\nFirst\n")
    by_torch = ["--prompts", str(prompts), "--compile", "off", "--quantize", "int4", "--max-new-tokens", "5"]
    result, imported = cold(model_folder, *by_torch)
    assert "torch" in imported
    again, imported = cold(model_folder, *by_torch)
    assert again["samples"] == result["samples"]
    assert not HEAVY & imported
