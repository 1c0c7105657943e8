"""Recipes are found by name, and by nothing but a name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gptkit import recipe_files
from gptkit.errors import UsageError
from gptkit.recipe_files import all_recipes, find_recipe, recipes_of, recipes_root


def test_the_repository_has_presets() -> None:
    assert {"gpt1", "gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl"} <= set(recipes_of("models"))
    assert all(one.path.is_file() and one.path.is_relative_to(recipes_root()) for one in all_recipes())


def test_a_name_means_a_recipe_before_a_preset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for file in ("models/small.json", "pretrain/small.yaml", "models/big.json", "models/-x.json", "pretrain/no.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    monkeypatch.setattr(recipe_files, "recipes_root", lambda: tmp_path)
    assert [one.full_name for one in all_recipes()] == ["models/big", "models/small", "pretrain/small"]
    assert find_recipe("small").kind == "pretrain"
    assert find_recipe("models/small").path == tmp_path / "models/small.json"
    assert find_recipe("big").kind == "models"


@pytest.mark.parametrize("name", ["../models/gpt1", "/etc/passwd", "", ".", "models/../models/gpt1", "gpt1.json", "*"])
def test_a_path_is_no_name(name: str) -> None:
    with pytest.raises(UsageError):
        find_recipe(name)


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'gpt2-small'"):
        find_recipe("gpt2-smal")
    with pytest.raises(UsageError, match="did you mean 'models/gpt2-xl'"):
        find_recipe("model/gpt2-xl")


def test_a_wheel_has_its_recipes_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(recipes_root(), tmp_path / "gptkit" / "recipes")
    monkeypatch.setattr(recipe_files, "__file__", str(tmp_path / "gptkit" / "recipe_files.py"))
    assert recipes_root() == tmp_path / "gptkit" / "recipes"
