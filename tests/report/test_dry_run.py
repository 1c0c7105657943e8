"""`--dry-run` as a user runs it: it tells what the run would need and leaves nothing; slow: its figures come true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gptkit.cli.main import main
from gptkit.console import Console
from gptkit.model.loading import load_model
from gptkit.report.dry_run import show

TEXT = "".join(f"{i} green bottles, hanging on wall number {i * i};\n" for i in range(4000))
SMALL = ["--model", "tiny", "--tokenizer", "char", "--sequence-length", "32", "--tokens-per-step", "128"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "cache"))
    Path("text.txt").write_text(TEXT)


def plan(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*words, "--dry-run", "--json"]) == 0, capsys.readouterr().err
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_a_plan_tells_what_a_run_needs_and_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Four sequences a step, in passes of two: two of four processes have no work, here and on any GPU."""
    words = ["pretrain", "text.txt", *SMALL, "--steps", "6", "--num-processes", "4", "--micro-batch", "2"]
    assert main([*words, "--out", "run", "--dry-run", "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["tokens"] == 6 * 128
    assert found["vocabulary"] == len(set(TEXT[: int(len(TEXT) * 0.9)])) + 2  # with <|endoftext|> and <unk>
    assert found["processes"] == 4
    assert found["memory"]["fsdp2"]["weights"] < found["memory"]["ddp"]["weights"]
    assert found["here"]["steps"] == 20
    assert found["here"]["tokens_per_second"] > 0
    assert [one["name"] for one in found["devices"]] == ["A100", "H100", "H200", "B200"]
    assert found["labels"]["memory.weights"] == "computed"
    assert found["idle"].startswith("2 of 4 processes have no work: pass --micro-batch 1")
    assert found["idle"] in " ".join(shown.err.split())
    assert [one["idle"] for one in found["devices"]] == [2] * 4
    assert {path.name for path in Path().iterdir()} == {"text.txt", "cache"}
    show(found, Console())
    tables = capsys.readouterr().out
    for word in ("optimizer state", "computed", "measured", "assumed", "B200", "FSDP2"):
        assert word in tables


def test_the_disk_of_a_plan_is_the_run_s(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pretrain", "text.txt", *SMALL, "--steps", "2", "--save-every", "1", "--compile", "off", "--out", "run"]
    found = plan(capsys, *words)
    assert main([*words, "--json"]) == 0
    tensors = list(Path("run/checkpoints/step-000002").glob("*.safetensors"))
    assert sum(path.stat().st_size for path in tensors) == found["disk"]["checkpoint"]
    assert Path("run/model/model.safetensors").stat().st_size == pytest.approx(found["disk"]["model"], rel=0.01)
    kept, snapshots = found["disk"]["kept"], list(Path("run/snapshots").glob("*/model.safetensors"))
    assert (kept, len(snapshots)) == (2, found["disk"]["snapshots"])
    assert snapshots[0].stat().st_size == found["disk"]["model"]
    most = (kept + 1) * found["disk"]["checkpoint"] + (len(snapshots) + 1) * found["disk"]["model"]
    assert found["disk"]["most"] == most
    capsys.readouterr()
    wsd = plan(capsys, *words[:-1], "another", "--schedule", "wsd")
    assert wsd["disk"]["kept"] == 3  # that before the decay


def test_a_fine_tuning_plan_counts_seeds(capsys: pytest.CaptureFixture[str], model_folder: Path) -> None:
    words = ["finetune", "--task", "demo-entailment", "--model", str(model_folder), "--epochs", "2", "--seeds", "3"]
    found = plan(capsys, *words)
    assert found["runs"] == 3
    assert found["steps"] == 3 * 2 * (found["n_train"] // 32)
    assert found["tokens"] == pytest.approx(found["steps"] * found["tokens_per_step"])
    assert found["idle"] is None
    assert not Path("runs").exists()


def test_a_plan_of_a_model_directory_counts_its_tied_embedding_once(
    capsys: pytest.CaptureFixture[str], model_folder: Path
) -> None:
    found = plan(capsys, "pretrain", "text.txt", "--model", str(model_folder), "--tokens-per-step", "264")
    assert found["parameters"] == load_model(model_folder).num_parameters()


SIZES = [(2, 128), (4, 256), (6, 384)]
needs_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's RssAnon")


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize(("layers", "width"), SIZES)
def test_a_pre_training_plan_comes_true(layers: int, width: int) -> None:
    """Peak memory within 10% and training time within 20%; wants the machine to itself."""
    comes_true("pretrain", "text.txt", "--model", shape(layers, width), *LONGER)


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize(("layers", "width"), SIZES)
def test_a_fine_tuning_plan_comes_true(layers: int, width: int) -> None:
    """The same for a task, whose sequences are of all lengths."""
    words = ["pretrain", "text.txt", "--model", shape(layers, width), *LONGER]
    words[words.index("--steps") + 1] = "1"
    watched(*words, "--out", "start")
    task = ["--task", "demo-entailment", "--epochs", "1", "--dropout", "0", "--json"]
    comes_true("finetune", "--model", "start/model", *task)


LONGER = ["--tokenizer", "bpe:500", "--tokens-per-step", "2048", "--steps", "16", "--dropout", "0", "--compile", "off"]
LONGER += ["--validation", "0.05", "--json"]


def shape(layers: int, width: int) -> str:
    sizes = {"vocab_size": 50257, "n_positions": 256, "n_embd": width, "n_layer": layers, "n_head": width // 64}
    Path("model.json").write_text(json.dumps({"model_type": "gptkit", **sizes}))
    return "model.json"


def comes_true(*words: str) -> None:
    expected, _ = watched(*words, "--dry-run")
    result, peak = watched(*words, "--out", "run")
    assert expected["memory"]["ddp"]["total"] == pytest.approx(peak, rel=0.1)
    assert expected["here"]["train_seconds"] == pytest.approx(result["train_seconds"], rel=0.2)


def watched(*words: str) -> tuple[dict[str, Any], int]:
    """Return what a command prints in a process of its own, and the most anonymous memory that it held."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "gptkit", *words]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = max([peak, *(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))])
            time.sleep(0.005)
        assert process.stdout is not None
        return json.loads(process.stdout.read()), peak
