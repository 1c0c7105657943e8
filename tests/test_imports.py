"""Imports point one way, from the command line down to the errors."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from pathlib import Path

import pytest

import gptkit

PACKAGE = Path(gptkit.__file__).parent
REPOSITORY = Path(__file__).parents[1]
BASE = {"errors", "options", "recipes", "system"}
MODEL = BASE | {"text", "model", "model_files"}
VERBS = ("pretrain", "finetune", "generate", "evaluate", "use", "inspect", "probe", "manage", "convert")
CORE = MODEL | {"decoding", "scoring", "training", "report", "tasks"} | {"console"}
# Each part, and what of the others it may import: cli -> verbs -> tasks -> (decoding, scoring, training, report) ->
# (model, text) -> errors. No verb imports another.
MAY_IMPORT = {
    "errors": set(),
    "options": set(),
    "recipes": {"errors", "options", "system"},
    "system": {"errors"},
    "console": {"system", "tables"},
    "tables": {"system"},
    "text": BASE,
    "model_files": {"errors", "recipes", "system"},
    "model": BASE | {"text", "model_files"},
    "decoding": MODEL,
    "scoring": MODEL,
    "training": MODEL | {"console"},
    "report": MODEL | {"console"} | {"training"},
    "tasks": MODEL | {"scoring", "training"},
    **dict.fromkeys(VERBS, CORE),
    "cli": BASE | {"console"} | {*VERBS, "training", "tasks"},
    "__main__": {"cli"},
}
STANDARD_LIBRARY_ALONE = {"errors", "options"}
THIRD_PARTY = {
    "system": {
        "yaml",
        "torch",
        "pyarrow",
        "filelock",
        "charset_normalizer",
        "datasets",
        "huggingface_hub",
    },  # inside the functions that need them
    "model": {"torch", "transformers", "safetensors", "numpy", "huggingface_hub"},
    "training": {"torch", "accelerate", "safetensors", "numpy", "psutil", "yaml", "tensorboard", "wandb", "trackio"},
    "recipes": {"yaml"},
    "console": {"rich"},
    "tables": {"rich"},
    "cli": {"typer", "torch"},
    "__main__": set(),
} | {name: set() for name in STANDARD_LIBRARY_ALONE}


@functools.cache
def imports() -> list[tuple[str, str]]:
    """Return (file, dotted name) for every import in the package, wherever it stands in the file."""
    found: list[tuple[str, str]] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found += [(str(path.relative_to(PACKAGE)), one.name) for one in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: write the full module path"
                names = [f"gptkit.{one.name}" for one in node.names] if node.module == "gptkit" else [node.module or ""]
                found += [(str(path.relative_to(PACKAGE)), name) for name in names]
    return found


def part_of(file: str) -> str:
    return Path(file).parts[0].removesuffix(".py")


def test_every_part_has_its_place() -> None:
    parts = {part_of(str(path.relative_to(PACKAGE))) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert parts <= set(MAY_IMPORT), "say in MAY_IMPORT what the new part may import"


def test_imports_point_one_way() -> None:
    wrong = []
    for file, name in imports():
        top, *rest = name.split(".")
        part = part_of(file)
        target = rest[0] if rest else ""
        is_module = (PACKAGE / target).is_dir() or (PACKAGE / f"{target}.py").is_file()
        if top == "gptkit" and target and is_module and target != part and target not in MAY_IMPORT.get(part, set()):
            wrong.append(f"{file} imports {name}")
    assert not wrong


def test_each_part_keeps_to_its_libraries() -> None:
    wrong = []
    for file, name in imports():
        top = name.split(".")[0]
        if top == "gptkit" or top in sys.stdlib_module_names:
            continue
        allowed = THIRD_PARTY.get(part_of(file))
        if top not in allowed if allowed is not None else top in {"typer", "rich"}:
            wrong.append(f"{file} imports {name}")
    assert not wrong


def test_every_library_is_declared() -> None:
    if not (REPOSITORY / "pyproject.toml").is_file():
        pytest.skip("no pyproject.toml beside the tests")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    declared = {re.split(r"[^\w.-]", line)[0].lower().replace("-", "_") for line in project["dependencies"] + extras}
    modules = {"yaml": "pyyaml", "sklearn": "scikit_learn"}
    third = {name.split(".")[0] for _, name in imports()} - sys.stdlib_module_names - {"gptkit"}
    assert {modules.get(name, name) for name in third} <= declared
