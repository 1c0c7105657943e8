"""What shell completion offers as the value of an option, by the option's name; no torch, no transformers."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path

import typer

from gptkit.recipes import CONFIG, all_recipes, recipes_of


def tasks(ctx: typer.Context) -> list[str]:
    """Return what finetune trains on; for eval also its own rows, and each of their protocols."""
    from gptkit.tasks.table import TASKS, names_of_evaluations

    return sorted({*TASKS, *(names_of_evaluations() if ctx.command.name == "eval" else ())})


def recipes(ctx: typer.Context) -> list[str]:
    return list(recipes_of(str(ctx.command.name)))


def recipes_and_presets() -> list[str]:
    return [name for recipe in all_recipes() for name in (recipe.name, recipe.full_name)]


def runs(incomplete: str) -> list[str]:
    """Return the run directories under ./runs, and those whose path begins so."""
    return _folders_with(CONFIG, incomplete)


def resumable_runs(incomplete: str) -> list[str]:
    return ["auto", "never", *runs(incomplete)]


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return presets for pretrain, runs for what reads their models, and model directories."""
    first = list(recipes_of("models")) if ctx.command.name == "pretrain" else runs(incomplete)
    return [*first, *_folders_with("config.json", incomplete)]


def _folders_with(file: str, incomplete: str) -> list[str]:
    patterns = (f"runs/*/{file}", f"{glob.escape(incomplete)}*/{file}")
    return sorted({str(Path(found).parent) for pattern in patterns for found in glob.glob(pattern)})


COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "task": tasks,
    "recipe": recipes,
    "name": recipes_and_presets,
    "model": models,
    "resume": resumable_runs,
    "all_checkpoints": runs,
}
