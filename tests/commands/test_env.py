"""gptkit env."""

from __future__ import annotations

import json
import platform

import pytest
import torch

from gptkit.cli import main


def test_env_tells_versions_and_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["torch"] == torch.__version__
    assert facts["cores"] >= 1
    assert isinstance(facts["bf16"], bool)
    assert len(facts["gpus"]) == torch.cuda.device_count()
    assert main(["env"]) == 0
    out = capsys.readouterr().out
    assert torch.__version__ in out
    assert facts["cache"] in out
