"""What an installed gptkit brings along, and what the project files promise."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def test_the_wheel_has_the_recipes_and_the_types_inside(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("gptkit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
        scripts = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    recipes = {f"gptkit/{path.relative_to(REPOSITORY)}" for path in (REPOSITORY / "recipes").rglob("*.*")}
    modules = {str(path.relative_to(REPOSITORY / "src")) for path in (REPOSITORY / "src").rglob("*.py")}
    native = {str(path.relative_to(REPOSITORY / "src")) for path in (REPOSITORY / "src").rglob("native/*.[ch]")}
    page = {str(path.relative_to(REPOSITORY / "src")) for path in (REPOSITORY / "src").rglob("html/*")}
    assert native
    assert page
    assert recipes | modules | native | page | {"gptkit/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "gptkit = gptkit.__main__:main" in scripts
    assert "Requires-Python: >=3.11" in metadata


def test_every_dependency_is_pinned_in_constraints() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [
        *project["dependencies"],
        *project["optional-dependencies"]["dev"],
        *project["optional-dependencies"]["gpt1"],
    ]
    asked = {re.split(r"[^\w.-]", line)[0] for line in lines} - {"gptkit"}
    text = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    pins = dict(line.split("==") for line in text.splitlines() if line and not line.startswith("#"))
    normal = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in asked} <= set(normal)
    assert not [version for version in pins.values() if "+" in version]
    assert f"TORCH ?= torch=={normal['torch']}" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")
