"""gptkit recipes ls, show, cp."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptkit.cli.main import main
from gptkit.pretrain.options import PretrainOptions
from gptkit.recipes import all_recipes, read_recipe, recipe_keys


def test_ls_lists_every_file_with_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "ls"]) == 0
    out = capsys.readouterr().out
    for recipe in all_recipes():
        assert recipe.name in out
    assert "12 layers, 12 heads, 768 wide, 1024 positions" in out
    assert main(["recipes", "ls", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["recipes"]
    assert [(row["kind"], row["name"]) for row in listed] == [(recipe.kind, recipe.name) for recipe in all_recipes()]


def test_a_shown_recipe_is_a_recipe_that_names_every_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["recipes", "show", "pretrain/gpt1"]) == 0
    out = capsys.readouterr().out
    shown = tmp_path / "shown.yaml"
    shown.write_text(out)
    [source] = [recipe.path for recipe in all_recipes() if recipe.full_name == "pretrain/gpt1"]
    assert read_recipe(shown, PretrainOptions) == read_recipe(source, PretrainOptions)
    shown.write_text("\n".join(line.removeprefix("# ") for line in out.partition("defaults:\n")[2].splitlines()))
    left = read_recipe(shown, PretrainOptions)
    assert set(left) | set(read_recipe(source, PretrainOptions)) == set(recipe_keys(PretrainOptions))
    assert PretrainOptions(**left) == PretrainOptions()
    assert main(["recipes", "show", "pretrain/gpt1", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["values"]["optimizer"] == "openai-adam"
    assert facts["defaults"]["beta1"] == 0.9


def test_a_preset_is_shown_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "models/gpt2-small"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["n_layer"] == 12
    assert err == "next: gptkit recipes cp models/gpt2-small gpt2-small.json\n"


def test_cp_copies_and_never_overwrites(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "cp", "models/gpt1"]) == 0
    assert capsys.readouterr().out == "gpt1.json\n"
    assert json.loads(Path("gpt1.json").read_text())["n_embd"] == 768
    assert main(["recipes", "cp", "pretrain/gpt1", "mine.yaml"]) == 0
    assert capsys.readouterr().err == "next: gptkit pretrain --dry-run --recipe mine.yaml\n"
    for line, part in (
        (["models/gpt1"], "already exists"),
        (["models/gpt1", "mine.yaml"], "already exists"),
        (["models/gpt1", "new.yaml"], ".json"),
        (["models/gpt1", "no/such/x.json"], "no such file"),
    ):
        assert main(["recipes", "cp", *line]) == 2
        assert part in capsys.readouterr().err
