"""Where the recipes lie: models/NAME.json (model presets), COMMAND/NAME.yaml, and config.yaml, the one of a run itself.

Finding only; `option_values.py` reads a recipe, `model/loading.py` a preset. Standard library alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gptkit.errors import InputError, UsageError, suggest

CONFIG = "config.yaml"
CONFIG_HEADER = f"# gptkit {{command}} --recipe {CONFIG} repeats this run"
SUFFIXES = {"models": ".json", "pretrain": ".yaml", "finetune": ".yaml", "generate": ".yaml"}
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class RecipeFile:
    """A named file: `kind` is its folder under recipes/, `name` its file name without the suffix."""

    kind: str
    name: str
    path: Path

    @property
    def full_name(self) -> str:
        return f"{self.kind}/{self.name}"

    def first_comment(self) -> str:
        """Return the first comment of a YAML recipe without its mark, or "" when it has none."""
        for line in self.path.read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                return line.lstrip("# ").rstrip()
        return ""


def recipes_root() -> Path:
    """Return the recipes folder: inside the package (a wheel), else the repository's (an editable install)."""
    package = Path(__file__).resolve().parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parents[1] / "recipes"


def recipes_of(kind: str) -> dict[str, Path]:
    """Return the files of one kind by name, in alphabetical order; a kind without a folder has none."""
    folder = recipes_root() / kind
    files = sorted(folder.glob(f"*{SUFFIXES[kind]}")) if kind in SUFFIXES else []
    return {path.stem: path for path in files if SAFE_NAME.fullmatch(path.stem)}


def all_recipes() -> Iterator[RecipeFile]:
    """Yield every preset and recipe, model presets first."""
    for kind in SUFFIXES:
        for name, path in recipes_of(kind).items():
            yield RecipeFile(kind, name, path)


def find_recipe(name: str) -> RecipeFile:
    """Return the file that KIND/NAME or NAME means; of several kinds a recipe comes before a model preset.

    Raises UsageError with the nearest known name.
    """
    known = sorted(all_recipes(), key=lambda one: one.kind == "models")
    for one in known:
        if name in (one.full_name, one.name):
            return one
    names = [one.full_name for one in known] if "/" in name else [one.name for one in known]
    raise UsageError(f"no recipe is called {name!r}", where="NAME", fix=suggest(name, set(names)))


def refuse_foreign_config(config: Path, command: str) -> None:
    """Raise for the config.yaml of another command's run, and for one that was cut off."""
    text = config.read_bytes().decode(errors="replace")
    for other in {"pretrain", "finetune"} - {command}:
        if text.startswith(CONFIG_HEADER.format(command=other)):
            fix = f"give it to gptkit {other}, or choose another --out"
            raise UsageError(f"it is a run of gptkit {other}", where=str(config.parent), fix=fix)
    if not text.strip() or not text.endswith("\n"):
        fix = "remove it, then give the run's own command, all options and --out: its checkpoints know them"
        raise InputError(f"{CONFIG} is damaged: it was cut off", where=str(config), fix=fix)
