"""gptkit env."""

from __future__ import annotations

import json
import platform

import pytest
import torch

from gptkit.cli.main import main
from gptkit.system.processor import cpu_has_bf16


def test_env_tells_versions_and_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["torch"] == torch.__version__
    assert facts["cores"] >= 1
    assert facts["bf16"] == cpu_has_bf16()
    assert len(facts["gpus"]) == torch.cuda.device_count()
    assert main(["env"]) == 0
    out = capsys.readouterr().out
    assert torch.__version__ in out
    assert facts["cache"] in out


def test_env_tells_what_the_environment_takes_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    monkeypatch.setenv("CC", "cc -mno-avx512f")
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["bf16"], facts["amx"]) == (False, False)
    assert "ONEDNN_MAX_CPU_ISA=AVX512_CORE" in facts["limits"]
    assert facts["c_compiler"] is None or facts["c_compiler"].endswith(" -mno-avx512f")
