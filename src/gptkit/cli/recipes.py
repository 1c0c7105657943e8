"""`gptkit recipes`: list, show and copy model presets and recipes."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptkit.console import Console
from gptkit.errors import InputError
from gptkit.options import REQUIRED, OutputOptions, fields_of, option
from gptkit.recipes import RecipeFile, all_recipes, find_recipe, read_recipe, recipe_keys


@dataclass(frozen=True, kw_only=True)
class RecipesListOptions(OutputOptions):
    """List the model presets and the recipes."""


@dataclass(frozen=True, kw_only=True)
class RecipesShowOptions(OutputOptions):
    """Show a preset, or a recipe with the default of every key that it does not set."""

    name: str = option(REQUIRED, "NAME or KIND/NAME, as gptkit recipes ls lists them.", argument=True, metavar="NAME")


@dataclass(frozen=True, kw_only=True)
class RecipesCopyOptions(RecipesShowOptions):
    """Copy a preset or a recipe to a file that you can edit."""

    destination: Path = option(
        Path(), "Folder or new file to copy to [default: the current folder].", argument=True, metavar="DST"
    )


def run_list(options: RecipesListOptions, console: Console) -> dict[str, Any]:
    """Print a table of all presets and recipes."""
    found = [
        {"kind": recipe.kind, "name": recipe.name, "path": recipe.path, "about": _about(recipe)}
        for recipe in all_recipes()
    ]
    console.table("", ("kind", "name", "about"), [(row["kind"], row["name"], row["about"]) for row in found])
    return {"recipes": found}


def run_show(options: RecipesShowOptions, console: Console) -> dict[str, Any]:
    """Print a file unchanged, followed for a recipe by its other keys and their defaults as comments."""
    from gptkit.cli.commands import COMMANDS  # not at the top, since that module imports this one

    found = find_recipe(options.name)
    facts: dict[str, Any] = {"kind": found.kind, "name": found.name, "path": found.path}
    text = found.path.read_text(encoding="utf-8").rstrip()
    if found.kind == "models":
        console.result(text)
        return facts | {"values": json.loads(text)}
    [schema] = [row.options for row in COMMANDS if row.name == found.kind]
    values, fields = read_recipe(found.path, schema), fields_of(schema)
    defaults = {key: fields[key].default for key in recipe_keys(schema) if key not in values}
    console.result(text)
    console.result("\n# Left at their defaults:")
    for key, default in defaults.items():
        console.result(f"# {f'{key}: {_yaml(default)}':<34} # {fields[key].metadata['help']}")
    return facts | {"values": values, "defaults": defaults}


def run_copy(options: RecipesCopyOptions, console: Console) -> dict[str, Any]:
    """Copy a file to a folder or a new file, overwriting nothing."""
    found = find_recipe(options.name)
    target = options.destination / found.path.name if options.destination.is_dir() else options.destination
    if target.exists():
        raise InputError("the file already exists", where=str(target), fix="choose another name")
    if target.suffix != (suffix := found.path.suffix):
        fix = f"write {target.with_suffix(suffix).name}"
        raise InputError(f"the copy must keep the suffix {suffix}", where=str(target), fix=fix)
    shutil.copyfile(found.path, target)
    console.result(str(target))
    is_model = found.kind == "models"
    command, flag = ("pretrain", "--model") if is_model else (found.kind, "--recipe")
    return {"name": found.name, "path": target, "command": command, "flag": flag}


def _about(recipe: RecipeFile) -> str:
    text = recipe.path.read_text(encoding="utf-8")
    if recipe.kind != "models":
        return text.partition("\n")[0].removeprefix("# ")  # each begins with a comment that names its source
    sizes = json.loads(text)
    units = {"n_layer": "layers", "n_inner": "units", "n_head": "heads", "n_embd": "wide", "n_positions": "positions"}
    return ", ".join(f"{sizes[key]} {unit}" for key, unit in units.items() if key in sizes)


def _yaml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
