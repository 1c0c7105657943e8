"""Declare command-line options: dataclass fields with a type, a default and a help text.

A dataclass of options is a command's signature: `cli/app.py` turns its fields into flags, recipes set the same names,
and a run's config.yaml is written from them. Only the standard library is imported.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

# In the order of the help; only --help-all shows `Advanced` and `Recipe keys`.
Panel = Literal["Common", "Gate", "Analysis", "Speed", "Run", "Advanced", "Recipe keys"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
CompileChoice = Literal["auto", "on", "off"]

T = TypeVar("T")

REQUIRED: Any = None  # the default of an option that must be given; its type has no None


def option(
    default: T,
    help: str,
    *,
    panel: Panel = "Common",
    resumable: bool = False,
    argument: bool = False,
    short: str | None = None,
    metavar: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> T:
    """Return a dataclass field whose metadata describes the option to the command line.

    Only a `resumable` option may change when a run is resumed. `minimum` and `maximum` are inclusive.
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


def recipe_only(default: T, help: str, **more: Any) -> T:
    """Return an `option` that recipes can set and flags cannot."""
    return option(default, help, panel="Recipe keys", **more)


def fields_of(options: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of an options class by name, in order of definition."""
    return {field.name: field for field in dataclasses.fields(options)}


def override(options: type, name: str, **changes: Any) -> Any:
    """Return a copy of an inherited option with another default or metadata, for a subclass to assign to its name."""
    inherited = fields_of(options)[name]
    default = changes.pop("default", inherited.default)
    return field(default=default, metadata={**inherited.metadata, **changes})


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """The options of every command."""

    json: bool = option(False, "Print one JSON object on stdout.", panel="Run", resumable=True)


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(OutputOptions):
    """The options of every command that reads the user's text."""

    encoding: str = option(
        "utf-8",
        "Encoding of text files and stdin without a byte order mark, such as gb18030 or cp1252.",
        panel="Advanced",
        metavar="NAME",
    )
