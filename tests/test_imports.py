"""Imports point one way: cli -> commands -> (training, generation, ...) -> model -> data -> options, errors."""

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
BASE = {
    *("errors", "options", "option_values", "recipe_files", "run_files", "network", "strict_json", "plain_yaml"),
    "lock_files",
}
CORE = BASE | {"data", "model", "model_files", "processor"}
ABOVE = CORE | {"training", "generation", "evaluation", "reporting"}
MAY_IMPORT = {
    "errors": set(),
    "ranks": {"errors"},
    "signals": set(),
    "lock_files": set(),
    "processor": {"errors"},
    "options": set(),
    "strict_json": {"errors"},
    "plain_yaml": {"errors"},
    "option_values": {"errors", "options", "plain_yaml"},
    "recipe_files": {"errors"},
    "network": {"errors"},
    "run_files": set(),
    "model_files": {"errors", "recipe_files", "run_files", "network", "strict_json"},
    # data: to register and to read what tokenizers say
    "model": {"errors", "model_files", "run_files", "strict_json", "data"},
    "data": BASE,
    # training knows no task, no model class and no screen
    "training": BASE | {"model_files", "ranks", "signals", "processor"},
    "generation": CORE,
    "evaluation": CORE,
    "reporting": CORE,
    "pretraining": ABOVE,
    "finetuning": ABOVE,
    "terminal": set(),
    "progress": {"terminal"},
    "console": {"terminal", "progress"},
    "commands": ABOVE | {"pretraining", "finetuning", "console", "progress", "ranks", "signals"},
    "failures": {"errors", "recipe_files", "refusals"},
    "refusals": {"errors"},
    "help_text": {"option_values", "options", "terminal"},
    "command_line": BASE,
    "command_table": {"options"},
    "cli": BASE
    | {"ranks", "signals", "console", "terminal", "failures", "refusals", "help_text", "command_line", "command_table"},
    "__main__": {"cli"},
}
STANDARD_LIBRARY_ALONE = {
    *("errors", "options", "recipe_files", "network", "failures", "help_text", "command_line", "command_table"),
    *("terminal", "ranks", "signals", "lock_files", "run_files", "strict_json", "refusals"),
}
THIRD_PARTY = {
    "model_files": {"safetensors", "numpy", "huggingface_hub"},
    "model": {"torch", "transformers", "safetensors", "numpy", "huggingface_hub"},
    "training": {"torch", "accelerate", "safetensors", "numpy", "psutil", "yaml", "tensorboard", "wandb", "trackio"},
    "processor": {"torch"},
    "option_values": {"yaml"},
    "plain_yaml": {"yaml"},
    "console": {"rich"},
    "progress": {"rich"},
    "cli": {"typer"},
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
