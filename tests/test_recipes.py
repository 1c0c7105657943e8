"""Recipes and flags: one set of rules, every mistake one line that names its place."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gptkit import recipes
from gptkit.cli.commands import COMMANDS
from gptkit.errors import UsageError
from gptkit.options import fields_of
from gptkit.pretrain.options import PretrainOptions
from gptkit.recipes import (
    FLAGS_ONLY,
    all_recipes,
    find_recipe,
    kinds_of,
    parse_value,
    read_recipe,
    recipes_of,
    recipes_root,
)
from gptkit.system.reading import LARGEST_YAML

OPTIONS = [row.options for row in COMMANDS]


def read(tmp_path: Path, text: str | bytes) -> dict[str, Any]:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_recipe(recipe, PretrainOptions)


def test_scalars_are_read_as_after_a_flag(tmp_path: Path) -> None:
    numbers = "steps: 1_000\nlearning_rate: 1e-4\nseed: '7'\n"
    words = "compile: off\ndata: [a.txt, 'b c']\nmodel: ~\nout: runs/x # here\n"
    assert read(tmp_path, numbers + words) == {
        "steps": 1000,
        "compile": "off",
        "learning_rate": 1e-4,
        "data": ("a.txt", "b c"),
        "model": None,
        "out": Path("runs/x"),
        "seed": 7,
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "\ufeff", "{}"])
def test_an_empty_recipe_sets_nothing(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == {}


def test_what_yaml_writes_comes_back(tmp_path: Path) -> None:
    values = {
        "steps": 3,
        "learning_rate": 1e-05,
        "gradient_checkpointing": True,
        "data": ["/a: b", "#c"],
        "model": None,
    }
    read_back = read(tmp_path, yaml.safe_dump(values))
    assert read_back == values | {"data": ("/a: b", "#c")}


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("steps: 3\nstep: 4", 2, "did you mean 'steps'?"),
        ("seed: 1\n\nweight-decay: 4", 3, "did you mean 'weight_decay'?"),
        ("steps: 3\nsteps: 4", 2, "duplicate key"),
        ("steps: many", 1, "a whole number of at least 1"),
        ("steps: 1.5", 1, "a whole number"),
        ("steps: true", 1, "a whole number"),
        ("steps: 0", 1, "out of range"),
        ("steps:", 1, "empty"),
        ("steps: [1]", 1, "this key takes one value, not a list"),
        ("dropout: 1.5", 1, "between 0 and 0.99"),
        ("learning_rate: .nan", 1, "not a number"),
        ("learning_rate: inf", 1, "not finite"),
        ("gradient_checkpointing: maybe", 1, "true or false"),
        ("schedule: cosin", 1, "did you mean 'cosine'?"),
        ("seed: 3\nmodel: ''", 2, "empty"),
        ('model: "a\\0b"', 1, "NUL"),
        ("resume: never", 1, "flag"),
        ("json: true", 1, "flag"),
        ("steps: {a: 1}", 1, "nested"),
        ("data: [a, [b]]", 1, "nested"),
        ("steps: &a 3\nseed: *a", 1, "must not contain anchors or aliases"),
        ("seed: *a", 1, "must not contain anchors or aliases"),
        ("seed: !!int 3", 1, "must not contain tags"),
        ("seed: !!python/object/apply:os.system [exit]", 1, "must not contain tags"),
        ("!!map\nsteps: 3", 1, "must not contain tags"),
        ("? [a]\n: 1", 1, "a key is not one word"),
        ("- steps: 3", 1, "key: value"),
        ("just words", 1, "key: value"),
        ("steps: 3\n---\nsteps: 4", 2, "another document"),
        ("steps: 3\nseed: [1", 2, "not YAML"),
        ("a: 'b", 1, "not YAML"),
        ("[" * 100_000, 1, "nests values too deeply"),
        ("&a [" * 50_000, 1, "must not contain anchors or aliases"),
    ],
)
def test_a_bad_recipe_is_one_line_with_its_place(tmp_path: Path, text: str, line: int, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    shown = str(caught.value)
    assert f"recipe.yaml:{line}" in shown
    assert part in shown
    assert caught.value.fix
    assert "\n" not in shown


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"steps: \x00", "steps: \x1b[2J".encode("utf-16")])
def test_binary_recipes_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match=r"UTF-8|utf-16|not YAML"):
        read(tmp_path, content)


def test_huge_missing_and_odd_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "huge.yaml").write_bytes(b"#" * (LARGEST_YAML + 1))
    for name, part in (
        ("huge.yaml", "1 MB"),
        ("none.yaml", "not found.*see gptkit recipes ls"),
        ("", "not a regular file"),
    ):
        with pytest.raises(UsageError, match=part):
            read_recipe(tmp_path / name, PretrainOptions)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_file_does_more_than_be_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    values = {}
    with contextlib.suppress(UsageError):
        values = read(tmp_path_factory.getbasetemp(), content)
    assert set(values) <= set(fields_of(PretrainOptions))


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_explains_itself_and_accepts_its_default(options: type) -> None:
    kinds = kinds_of(options)
    for name, field in fields_of(options).items():
        assert field.metadata["help"].rstrip("]").endswith("."), name
        # A recipe's null means the default, so where null is allowed the default must be None.
        assert not kinds[name].optional or field.default is None, name
        if field.default not in (None, ()) and not kinds[name].many:
            assert parse_value(str(field.default), kinds[name], field, "here") == field.default, name


def test_every_recipe_of_the_repository_parses() -> None:
    for row in COMMANDS:
        for name, path in recipes_of(row.name).items():
            values = read_recipe(path, row.options)
            first_line = path.read_text(encoding="utf-8").partition("\n")[0]
            assert first_line.startswith("# "), f"{name} does not say where it is from"
            assert len(first_line) <= 92, f"{name} is too long for a line of gptkit recipes ls"
            assert not FLAGS_ONLY & set(values)
            defaults = {key: field.default for key, field in fields_of(row.options).items()}
            restated = [key for key, value in values.items() if value == defaults[key]]
            assert not restated, f"{name} restates defaults"


def test_the_repository_has_presets() -> None:
    assert {"gpt1", "gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl"} <= set(recipes_of("models"))
    assert all(recipe.path.is_file() and recipe.path.is_relative_to(recipes_root()) for recipe in all_recipes())


def test_a_name_means_a_recipe_before_a_preset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for file in ("models/small.json", "pretrain/small.yaml", "models/big.json", "models/-x.json", "pretrain/no.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    monkeypatch.setattr(recipes, "recipes_root", lambda: tmp_path)
    assert [recipe.full_name for recipe in all_recipes()] == ["models/big", "models/small", "pretrain/small"]
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
    monkeypatch.setattr(recipes, "__file__", str(tmp_path / "gptkit" / "recipes.py"))
    assert recipes_root() == tmp_path / "gptkit" / "recipes"
