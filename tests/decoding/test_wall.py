"""decoding/native/ is imported through its package only, and gptkit works without the folder."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gptkit
from gptkit.cli.main import main

PACKAGE = Path(gptkit.__file__).parent
NATIVE = PACKAGE / "decoding" / "native"


def run(source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gptkit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(source)})


@pytest.fixture(scope="module")
def without_native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(PACKAGE, source / "gptkit", ignore=shutil.ignore_patterns("native", "__pycache__"))
    assert not (source / "gptkit" / "decoding" / "native").exists()
    return source


def test_gptkit_works_without_the_folder(
    without_native: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["generate", "hear", "--model", str(model_folder), "--device", "cpu", "--max-new-tokens", "30", "--json"]
    samples = []
    for compile in ("on", "off"):
        assert main([*line, "--compile", compile]) == 0
        samples.append(json.loads(capsys.readouterr().out)["samples"])
    done = run(without_native, *line)
    assert json.loads(done.stdout)["samples"] == samples[0] == samples[1], done.stderr
    refused = run(without_native, *line, "--compile", "on")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    environment = run(without_native, "env", "--json")
    assert json.loads(environment.stdout)["c_compiler"] is None


def test_only_the_door_is_imported() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.is_relative_to(NATIVE):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("gptkit.decoding.native"), path
                imports_door = node.module == "gptkit.decoding" and any(name.name == "native" for name in node.names)
                assert not imports_door or path == PACKAGE / "decoding" / "engines.py", path
