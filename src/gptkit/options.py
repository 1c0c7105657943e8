"""How an option is written, once: its name, type, default and help; and the options that every command has.

A dataclass of options is a command's signature: `parameters.py` turns its fields into flags, recipes set the same
names, and a run's config.yaml is written back from them. This file knows the standard library alone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

# In the order of the help. `Advanced` and `Recipe keys` are shown by --help-all alone.
Panel = Literal["Common", "Gate", "Analysis", "Speed", "Run", "Advanced", "Recipe keys"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
CompileChoice = Literal["auto", "on", "off"]


def option(
    default: Any,
    help: str,
    *,
    panel: Panel = "Common",
    resumable: bool = False,
    argument: bool = False,
    short: str | None = None,
    metavar: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """Return a dataclass field whose metadata is all that the command line needs to know.

    A `resumable` option may change when a run is resumed, any other may not. `minimum` and `maximum` are inclusive.
    """
    metadata = {
        "help": help,
        "panel": panel,
        "recipe_only": panel == "Recipe keys",
        "resumable": resumable,
        "argument": argument,
        "short": short,
        "metavar": metavar,
        "minimum": minimum,
        "maximum": maximum,
    }
    return field(default=default, metadata=metadata)


def recipe_only(default: Any, help: str, **more: Any) -> Any:
    """Return an `option` that only recipes set."""
    return option(default, help, panel="Recipe keys", **more)


def fields_of(options: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of an options class by name, in order of definition."""
    return {field.name: field for field in dataclasses.fields(options)}


def override(options: type, name: str, **changes: Any) -> Any:
    """Return an inherited field again, for a subclass to keep in its place with another default or metadata."""
    inherited = fields_of(options)[name]
    default = changes.pop("default", inherited.default)
    return field(default=default, metadata={**inherited.metadata, **changes})


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What every command shares."""

    json: bool = option(False, "Print one JSON object on stdout.", panel="Run", resumable=True)
