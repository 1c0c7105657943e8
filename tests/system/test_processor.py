"""Instruction sets that the environment takes away: bf16 goes with them, and is refused wherever it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from generation_toy import write_model
from gptkit.system.processor import cpu_has_amx, cpu_has_bf16

ASKED_FOR_BF16 = """
import sys, torch
from gpt_toy import toy
from gptkit.cli.main import main
from gptkit.errors import UsageError
from gptkit.scoring.scorer import Scorer
from gptkit.system.processor import cpu_has_amx, cpu_has_bf16
from gptkit.training.rules import measured_peak

assert not cpu_has_bf16() and not cpu_has_amx()
for ask in (lambda: Scorer(toy(), device=torch.device("cpu"), precision="bf16"), lambda: measured_peak("bf16")):
    try:
        print("not refused", ask())
    except UsageError as error:
        print(error.fix)
bf16 = ("--model", sys.argv[1], "--device", "cpu", "--precision", "bf16")
train = ("pretrain", "--tokens-per-step", "240")
tune = ("finetune", "--task", "demo-classification")
for command in (
    (*train, *bf16), (*train, *bf16, "--dry-run"), (*train, *bf16, "--compile", "on"),
    (*tune, *bf16), (*tune, *bf16, "--dry-run"),
    ("eval", "--task", "perplexity", "--data", "text.txt", *bf16), ("eval", "--task", "demo-cloze", *bf16),
    ("generate", *bf16, "--compile", "off"), ("generate", *bf16, "--beams", "2"),
):
    print(main([*command]), *command, file=sys.stderr)
print(main(["generate", "--model", sys.argv[1], "--quantize", "int8", "--compile", "off", "--max-new-tokens", "2"]))
"""


def test_emulated_bf16_is_refused_at_once_by_every_command(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    (tmp_path / "text.txt").write_text("a text\n")
    limits = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", ASKED_FOR_BF16, str(model)],
        env={**os.environ, **limits, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[:2] == ["use --precision auto"] * 2
    assert done.stdout.splitlines()[-1] == "0"
    told = [line for line in done.stderr.splitlines() if "--precision auto" in line]
    ends = [line for line in done.stderr.splitlines() if line.endswith(("bf16", "--dry-run", "on", "off", "2"))]
    assert len(told) == 9, done.stderr
    assert [line[:2] for line in ends] == ["2 "] * 9, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "text.txt"]


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize("limit", ["AVX512_CORE", "avx512_core_vnni"])
def test_instruction_sets_under_which_onednn_emulates_bf16(
    name: str, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv(name, limit)
    assert not cpu_has_bf16()
    assert not cpu_has_amx()
