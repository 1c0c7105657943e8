"""`gptkit runs show` needs the defaults of the command that made the run, which only the table of commands has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptkit.console import Console
from gptkit.manage.options import RunsShowOptions
from gptkit.manage.runs import show
from gptkit.options import fields_of
from gptkit.recipes import read_recipe, recipe_behind


def run_show(options: RunsShowOptions, console: Console) -> dict[str, Any]:
    """Show a run, and which of its options are not the defaults."""
    return show(options, console, changed_options)


def changed_options(config: Path, command: str) -> dict[str, Any]:
    """Return the options in a run's config.yaml that differ from its recipe's, or from the defaults if it has none."""
    from gptkit.cli.commands import COMMANDS  # not at the top, since that module is read without this one

    [row] = [row for row in COMMANDS if row.name == command]
    values, by = read_recipe(config, row.options), str(row.recipe_by)
    given = {by: str(values[by])} if by in values else {}
    recipe, _ = recipe_behind(command, row.options, given, recipe_by=by)
    defaults = {name: field.default for name, field in fields_of(row.options).items()} | recipe
    return {name: value for name, value in values.items() if value != defaults[name]}
