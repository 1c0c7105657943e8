"""Reading a command line before Typer does: which flags are there, and which recipe gives the defaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gptkit.errors import UsageError, nearest, suggest
from gptkit.options import fields_of
from gptkit.recipes import CONFIG, kinds_of, read_recipe, recipe_keys, recipes_of, refuse_foreign_config

HELP_FLAGS = ("-h", "--help")
RECIPE_FLAGS = ("-r", "--recipe")
DEFAULT_RECIPE = "laptop"


class Flag(NamedTuple):
    """What a flag sets, and whether a value follows it."""

    name: str
    takes_value: bool


class RecipeValues(NamedTuple):
    """The values of the recipe behind a command line; `default_name` is its name where the line names none."""

    values: dict[str, Any]
    default_name: str | None = None


def flags_of(options: type) -> dict[str, Flag]:
    """Return every flag of a command by its spelling."""
    kinds = kinds_of(options)
    flags = {flag: Flag("help", False) for flag in HELP_FLAGS}
    if recipe_keys(options):
        flags |= {flag: Flag("recipe", True) for flag in RECIPE_FLAGS}
    for name, field in fields_of(options).items():
        if field.metadata["argument"] or field.metadata["recipe_only"]:
            continue
        is_switch = kinds[name].type is bool
        stem = name.replace("_", "-")
        for flag in (f"--{stem}", field.metadata["short"], f"--no-{stem}" if is_switch else None):
            if flag:
                flags[flag] = Flag(name, not is_switch)
    return flags


def scan(args: Sequence[str], flags: Mapping[str, Flag], knobs: Collection[str], path: str) -> dict[str, str]:
    """Return the text given to each option by a flag; an unknown flag raises UsageError with the nearest.

    Typer's own parser takes `-model x` for `-m odel x` and looks for the nearest flag less well.
    """
    given: dict[str, str] = {}
    rest = iter(args)
    for token in rest:
        if token == "--":
            break
        if token[:1] != "-" or token == "-":
            continue
        flag, has_value, value = token.partition("=")
        if flag not in flags:
            raise _unknown(flag, flags, knobs, path)
        if has_value and not flag.startswith("--"):
            raise UsageError(f"{token!r} glues a value to a short flag", where=path, fix=f"write {flag} {value}")
        if flags[flag].takes_value:
            given[flags[flag].name] = value if has_value else next(rest, "")
        elif has_value:
            raise UsageError(f"{flag} takes no value", where=path, fix=f"write {flag}")
    return given


def _unknown(flag: str, flags: Mapping[str, Flag], knobs: Collection[str], path: str) -> UsageError:
    name = flag.lstrip("-")
    key = name.replace("-", "_")
    if key in knobs:
        fix = f"write `{key}: VALUE` into a recipe and name that with --recipe"
        return UsageError(f"{flag!r} is a recipe key, not a flag", where=path, fix=fix)
    if not key.replace("_", "").isalpha():
        return UsageError(f"unknown flag {flag!r}", where=path, fix="write -- before text that begins with a dash")
    # The dashes are left out: they alone would make any two short flags look alike.
    near = nearest(name, [one[2:] for one in flags if one.startswith("--")])
    fix = f"did you mean '--{near}'?" if near else f"see {path} --help"
    return UsageError(f"unknown flag {flag!r}", where=path, fix=fix)


def recipe_values(command: str, options: type, given: Mapping[str, str], *, recipe_by: str | None) -> RecipeValues:
    """Return the values of the recipe behind a command line, converted.

    That is config.yaml of `--resume DIR` (with DIR as `out`), else `--recipe NAME|FILE`, else the recipe named like
    the value of the option `recipe_by`, `laptop` without it, if there is one.
    """
    resume = given.get("resume", "auto")
    if resume not in ("auto", "never"):
        if "recipe" in given:
            raise UsageError("--resume DIR brings its own options", where="--recipe", fix="leave --recipe out")
        if "out" in given:
            raise UsageError("--resume DIR goes on in DIR itself", where="--out", fix="leave --out out")
        config = Path(resume) / CONFIG
        if not config.is_file():
            raise UsageError(
                f"no run: {config} is missing", where="--resume", fix="give auto, never or a run directory"
            )
        refuse_foreign_config(config, command)
        return RecipeValues(read_recipe(config, options) | {"out": Path(resume)})
    if "recipe" in given:
        return RecipeValues(read_recipe(_recipe_path(command, given["recipe"]), options))
    name = given.get(recipe_by, DEFAULT_RECIPE) if recipe_by else None
    path = recipes_of(command).get(name) if name else None
    return RecipeValues(read_recipe(path, options), name) if path else RecipeValues({})


def _recipe_path(command: str, name: str) -> Path:
    known = recipes_of(command)
    if name in known:
        return known[name]
    path = Path(name)
    if path.exists() or path.suffix in (".yaml", ".yml"):
        return path
    fix = suggest(name, known) if known else "name a YAML file"
    raise UsageError(f"no recipe and no file is called {name!r}", where="--recipe", fix=fix)
