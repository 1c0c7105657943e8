"""Help texts from the options dataclasses: plain text in panels, closed by examples."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptkit.options import fields_of
from gptkit.recipes import Kind, kinds_of, recipe_keys
from gptkit.system.terminal import safe_text

PANELS = ("Common", "Gate", "Analysis", "Speed", "Run")
HELP_ROW = ("-h, --help", "Show this help.")
RECIPE_ROW = (
    "-r, --recipe NAME|FILE",
    "A name of gptkit recipes ls, or a YAML file of option names; flags win over it.",
)
_LEFT = 28
_OWN_DEFAULT = r" \[default: [^]]*\]"

Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Page:
    """What a help text says, in order; `sections` are titles with rows of (flags, explanation)."""

    usage: str
    summary: str
    sections: Sequence[tuple[str, Rows]]
    note: str = ""
    examples: Sequence[str] = ()

    def render(self, *, width: int, colour: bool) -> str:
        """Return the text, wrapped at `width` columns, with bold titles if `colour`."""
        lines = [*textwrap.wrap(self.summary, width), "", f"{_title('Usage:', colour)} {self.usage}"]
        for title, rows in self.sections:
            if rows:
                lines += ["", _title(f"{title}:", colour), *(line for row in rows for line in _wrapped(row, width))]
        if self.note:
            lines += ["", *textwrap.wrap(self.note, width, break_on_hyphens=False)]  # flags stay whole
        if self.examples:
            lines += ["", _title("Examples:", colour), *(f"  {example}" for example in self.examples)]
        return "\n".join(lines)


def command_page(path: str, summary: str, options: type, defaults: Mapping[str, Any], examples: Sequence[str]) -> Page:
    """Return the help of one command; `defaults` are a recipe's values, shown in place of the dataclass's own."""
    fields, kinds = fields_of(options), kinds_of(options)
    rows = {
        name: (_flags(name, one, kinds[name]), _explanation(one.metadata["help"], defaults.get(name, one.default)))
        for name, one in fields.items()
    }
    arguments = [rows[name] for name, one in fields.items() if one.metadata["argument"]]
    flags = [name for name, one in fields.items() if not one.metadata["recipe_only"] and not one.metadata["argument"]]
    required = [name for name in flags if fields[name].default is None and not kinds[name].optional]
    # Options with a short name are the ones used most.
    flags.sort(key=lambda name: (name not in required, fields[name].metadata["short"] is None))
    panels = {panel: [rows[name] for name in flags if fields[name].metadata["panel"] == panel] for panel in PANELS}
    if recipe_keys(options):
        panels["Common"].insert(0, RECIPE_ROW)
    panels["Run"].append(HELP_ROW)
    more = ["--" + name.replace("_", "-") for name in flags if fields[name].metadata["panel"] == "Advanced"]
    knobs = [name for name, one in fields.items() if one.metadata["recipe_only"]]
    notes = [
        f"Also flags: {', '.join(more)}." if more else "",
        f"Keys for recipes alone: {', '.join(knobs)}." if knobs else "",
    ]
    return Page(
        usage=" ".join(
            [path, *(rows[name][0].strip() for name in required), "[OPTIONS]", *(left for left, _ in arguments)]
        ),
        summary=summary,
        sections=[("Arguments", arguments), *panels.items()],
        note=" ".join([*filter(None, notes), "gptkit recipes show explains them."]) if any(notes) else "",
        examples=examples,
    )


def _flags(name: str, field: dataclasses.Field[Any], kind: Kind) -> str:
    if field.metadata["argument"]:
        return str(field.metadata["metavar"] or name.upper())
    flag = "--" + name.replace("_", "-")
    short = field.metadata["short"]
    left = f"{short}, {flag}" if short else f"    {flag}"
    if kind.type is bool:
        return left if field.default is False else f"{left}/--no-{flag[2:]}"
    value = {int: "N", float: "X", Path: "PATH"}.get(kind.type, "TEXT")
    return f"{left} {field.metadata['metavar'] or '|'.join(kind.choices) or value}"


def _explanation(text: str, default: Any) -> str:
    if default is None or default is False or default == () or default == Path():
        return text
    shown = "on" if default is True else " ".join(default) if isinstance(default, tuple) else default
    return f"{re.sub(_OWN_DEFAULT, '', text)} [default: {safe_text(str(shown))}]"


def _title(text: str, colour: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colour else text


def _wrapped(row: tuple[str, str], width: int) -> list[str]:
    left, right = row
    texts = textwrap.wrap(right, max(30, width - _LEFT - 2), break_on_hyphens=False, break_long_words=False) or [""]
    margin = " " * (_LEFT + 2)
    if len(left) + 2 > _LEFT:
        return [f"  {left}", *(margin + text for text in texts)]
    return [f"  {left:<{_LEFT}}{texts[0]}", *(margin + text for text in texts[1:])]
