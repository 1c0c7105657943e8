"""Every option of every command, once: its name, type, default and help.

The dataclass is the command's signature: `cli.py` turns fields into flags, recipes set the same names,
and a run's config.yaml is written back from them. This file knows the standard library alone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

Panel = Literal["Common", "Gate", "Analysis", "Speed", "Run", "More"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
CompileChoice = Literal["auto", "on", "off"]


def option(
    default: Any,
    help: str,
    *,
    panel: Panel = "Common",
    flag: bool = True,
    conduct: bool = False,
    argument: bool = False,
    short: str | None = None,
    metavar: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """Return a dataclass field whose metadata is all that the command line needs to know.

    `flag=False` makes a rare knob that only recipes set; the panel `More` a flag that the help names without
    explaining. `conduct` options may change when a run is resumed; all others are identity and may not. `minimum`
    and `maximum` are inclusive.
    """
    metadata = {
        "help": help,
        "panel": panel,
        "flag": flag,
        "conduct": conduct,
        "argument": argument,
        "short": short,
        "metavar": metavar,
        "minimum": minimum,
        "maximum": maximum,
    }
    return field(default=default, metadata=metadata)


def knob(default: Any, help: str, **more: Any) -> Any:
    """Return an `option` that only recipes set."""
    return option(default, help, flag=False, **more)


def fields_of(options: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of an options class by name, in order of definition."""
    return {one.name: one for one in dataclasses.fields(options)}


def amended(options: type, name: str, **changes: Any) -> Any:
    """Return an inherited field again, for a subclass to keep in its place with another default or metadata."""
    inherited = fields_of(options)[name]
    default = changes.pop("default", inherited.default)
    return field(default=default, metadata={**inherited.metadata, **changes})


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What every command shares."""

    json: bool = option(False, "Print one JSON object on stdout.", panel="Run", conduct=True)
