"""Recipes: find the files, and parse the values of options, for recipes and flags alike.

recipes/models/NAME.json are model presets, recipes/COMMAND/NAME.yaml recipes; a run's config.yaml is a recipe too.
A recipe is flat YAML, `key: value` or `key: [value, ...]`. Scalars are parsed from their text exactly as after a flag,
so `compile: off` is a word and `1e-4` a number. Nothing but the standard library is imported, and a YAML parser only
where a file is read.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gptkit.errors import InputError, UsageError, suggest
from gptkit.options import fields_of
from gptkit.system.reading import Entry, read_yaml

CONFIG = "config.yaml"
CONFIG_HEADER = f"# gptkit {{command}} --recipe {CONFIG} repeats this run"
SUFFIXES = {"models": ".json", "pretrain": ".yaml", "finetune": ".yaml", "generate": ".yaml"}
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FLAGS_ONLY = frozenset({"json", "resume", "dry_run"})
_FIX = "write flat `key: value` lines"
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class RecipeFile:
    """A recipe or model preset: `kind` is its folder under recipes/, `name` its file name without the suffix."""

    kind: str
    name: str
    path: Path

    @property
    def full_name(self) -> str:
        return f"{self.kind}/{self.name}"


def recipes_root() -> Path:
    """Return the recipes folder: in the package (a wheel), else in the repository (an editable install)."""
    package = Path(__file__).resolve().parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parents[1] / "recipes"


def recipes_of(kind: str) -> dict[str, Path]:
    """Return the files of one kind by name, in alphabetical order; none for a kind without a folder."""
    folder = recipes_root() / kind
    files = sorted(folder.glob(f"*{SUFFIXES[kind]}")) if kind in SUFFIXES else []
    return {path.stem: path for path in files if SAFE_NAME.fullmatch(path.stem)}


def all_recipes() -> Iterator[RecipeFile]:
    """Yield every preset and recipe, model presets first."""
    for kind in SUFFIXES:
        for name, path in recipes_of(kind).items():
            yield RecipeFile(kind, name, path)


def preset_name(name: str) -> str:
    """Return gpt2-small for gpt2, its name on the hub, unless there is such a path; any other name unchanged."""
    return "gpt2-small" if name == "gpt2" and not Path(name).exists() else name


def find_recipe(name: str) -> RecipeFile:
    """Return the file that KIND/NAME or NAME refers to; a recipe takes precedence over a model preset.

    Raises UsageError, suggesting the nearest known name.
    """
    known = sorted(all_recipes(), key=lambda recipe: recipe.kind == "models")
    for recipe in known:
        if preset_name(name) in (recipe.full_name, recipe.name):
            return recipe
    names = [recipe.full_name if "/" in name else recipe.name for recipe in known]
    raise UsageError(f"no recipe is called {name!r}", where="NAME", fix=suggest(name, set(names)))


def refuse_foreign_config(config: Path, command: str) -> None:
    """Raise an error for a config.yaml of another command's run, or one that is truncated."""
    text = config.read_bytes().decode(errors="replace")
    for other in {"pretrain", "finetune"} - {command}:
        if text.startswith(CONFIG_HEADER.format(command=other)):
            fix = f"pass it to gptkit {other}, or choose another --out"
            raise UsageError(f"this is a run of gptkit {other}", where=str(config.parent), fix=fix)
    if not text.strip() or not text.endswith("\n"):
        fix = "remove it, then repeat the original command with the same options and --out"
        raise InputError(f"{CONFIG} is damaged: it is truncated", where=str(config), fix=fix)


@dataclass(frozen=True)
class Kind:
    """An option's type: one value or `many` of `type`, restricted to `choices` if any; `optional` allows None."""

    type: type
    choices: tuple[str, ...] = ()
    optional: bool = False
    many: bool = False


def kinds_of(options: type) -> dict[str, Kind]:
    """Return the Kind of every option of a class, from its type hints."""
    hints = get_type_hints(options)
    return {name: _kind(hints[name]) for name in fields_of(options)}


def _kind(hint: Any) -> Kind:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        [inner] = [argument for argument in arguments if argument is not type(None)]
        return dataclasses.replace(_kind(inner), optional=True)
    if origin is Literal:
        return Kind(str, choices=arguments)
    if origin is tuple:
        return Kind(arguments[0], many=True)
    return Kind(hint)


def recipe_keys(options: type) -> list[str]:
    """Return the options that a recipe may set: none for a command that takes only arguments."""
    fields = fields_of(options)
    keys = [name for name in fields if name not in FLAGS_ONLY]
    return keys if any(not fields[name].metadata["argument"] for name in keys) else []


def parse_value(text: str, kind: Kind, field: dataclasses.Field[Any], where: str) -> Any:
    """Return the value that `text` stands for.

    Raises UsageError with `where` (a flag, or file:line and key) and what is accepted.
    """
    shown = repr(text if len(text) <= 60 else text[:57] + "...")
    if "\0" in text:
        raise UsageError(f"{shown} contains a NUL character", where=where, fix="remove it")
    if kind.choices:
        if text not in kind.choices:
            raise UsageError(f"{shown} is not a choice", where=where, fix=suggest(text, kind.choices))
        return text
    if kind.type is bool:
        if text.lower() not in _BOOLEANS:
            raise UsageError(f"{shown} is neither true nor false", where=where, fix="write true or false")
        return _BOOLEANS[text.lower()]
    if kind.type not in (int, float):
        if not text and not field.metadata["argument"]:
            raise UsageError("the value is empty", where=where, fix="pass one, or leave the option out")
        return Path(text).expanduser() if kind.type is Path else text
    minimum, maximum = field.metadata["minimum"], field.metadata["maximum"]
    noun = "a whole number" if kind.type is int else "a number"
    fix = f"pass {noun}"
    if minimum is not None and maximum is not None:
        fix += f" between {minimum} and {maximum}"
    elif minimum is not None or maximum is not None:
        fix += f" of at most {maximum}" if minimum is None else f" of at least {minimum}"
    try:
        number: int | float = kind.type(text if text.isascii() and text == text.strip() else "")
    except ValueError:
        raise UsageError(f"{shown} is not {noun}", where=where, fix=fix) from None
    if not math.isfinite(number):
        raise UsageError(f"{shown} is not finite", where=where, fix=fix)
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        raise UsageError(f"{shown} is out of range", where=where, fix=fix)
    return number


def read_recipe(path: Path, options: type) -> dict[str, Any]:
    """Return the values that a recipe sets, parsed and checked against an options class.

    Raises UsageError with file:line for anything but flat YAML, an unknown or duplicate key, or an invalid value.
    """
    fields, kinds = fields_of(options), kinds_of(options)
    values: dict[str, Any] = {}
    recipe = read_yaml(path, "the recipe", missing="see gptkit recipes ls, or pass a YAML file", fix=_FIX)
    for key, value in recipe.entries("the recipe", tuple(fields)).items():
        if key in FLAGS_ONLY:
            fix = f"use the flag --{key.replace('_', '-')}"
            raise UsageError(f"{key!r} is not a recipe key", where=value.where, fix=fix)
        values[key] = _recipe_value(value, kinds[key], fields[key], f"{value.where}, {key}")
    return values


def _recipe_value(value: Entry, kind: Kind, field: dataclasses.Field[Any], where: str) -> Any:
    if value.is_list():
        texts = [Entry(item, value.path).scalar() for item in value.node.value]
        if not kind.many:
            raise UsageError("this key takes one value, not a list", where=where, fix="write one value")
    elif (text := value.scalar()) is None:
        if not kind.optional and not kind.many:
            raise UsageError("the value is empty", where=where, fix="write one, or leave the key out")
        return () if kind.many else None
    else:
        texts = [text]
    parsed = tuple(parse_value(text or "", kind, field, where) for text in texts)
    return parsed if kind.many else parsed[0]


def recipe_behind(
    command: str, options: type, given: Mapping[str, str], *, recipe_by: str | None
) -> tuple[dict[str, Any], str]:
    """Return the parsed values of a command line's recipe, and its name if it is a default that nobody asked for.

    The recipe is config.yaml of `--resume DIR` (with DIR as `out`), else `--recipe NAME|FILE`, else the recipe named
    like the value of the option `recipe_by` (`laptop` if that is not given), if there is one.
    """
    resume = given.get("resume", "auto")
    if resume not in ("auto", "never"):
        if "recipe" in given:
            raise UsageError("--resume DIR uses the options of that run", where="--recipe", fix="remove --recipe")
        if "out" in given:
            raise UsageError("--resume DIR continues in DIR itself", where="--out", fix="remove --out")
        config = Path(resume) / CONFIG
        if not config.is_file():
            raise UsageError(
                f"no run: {config} is missing", where="--resume", fix="write auto, never or a run directory"
            )
        refuse_foreign_config(config, command)
        return read_recipe(config, options) | {"out": Path(resume)}, ""
    known = recipes_of(command)
    if "recipe" in given:
        name, path = preset_name(given["recipe"]), Path(given["recipe"])
        if name not in known and not path.exists() and path.suffix not in (".yaml", ".yml"):
            fix = suggest(name, known) if known else "pass a YAML file"
            raise UsageError(f"there is no recipe or file called {name!r}", where="--recipe", fix=fix)
        return read_recipe(known.get(name, path), options), ""
    name = preset_name(given.get(recipe_by, "laptop")) if recipe_by else ""
    return (read_recipe(known[name], options), name) if name in known else ({}, "")
