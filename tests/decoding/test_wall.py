"""decoding/native/ stands behind one door: nothing outside knows what it is made of, and gptkit works without it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gptkit

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


def samples(source: Path, *arguments: str) -> list[dict[str, Any]]:
    done = run(source, "generate", "hear", "--device", "cpu", "--max-new-tokens", "30", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["samples"]
    return found


def test_gptkit_works_without_the_folder(without_native: Path, model_folder: Path) -> None:
    model = ["--model", str(model_folder)]
    expected = samples(PACKAGE.parent, *model, "--compile", "off")
    assert samples(without_native, *model) == samples(PACKAGE.parent, *model) == expected
    refused = run(without_native, "generate", "hear", *model, "--device", "cpu", "--compile", "on")
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
