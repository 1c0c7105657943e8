"""The table of faults injected: one line a figure, kept in benchmarks/faults.md, where a new one replaces the old."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

ROWS = 28
INTRODUCTION = """# Faults injected

Each line was written by `make faults` (`pytest tests/faults --faults-full`, or one file of it) when its trials had
passed: how many faults of which kind, from which seed, what happened, and the bound that was asked for. `make test`
injects a sample of each.
"""
HEADER = "| row | fault | injected | seed | what happened | asked | date |\n|---|---|---|---|---|---|---|\n"


@dataclass(frozen=True, order=True)
class Figure:
    """A line of the table; `outcome` begins with "not run" where the machine cannot."""

    row: int
    fault: str
    injected: int
    seed: int | None
    outcome: str
    bound: str = ""


class Count(Protocol):
    """How many trials to make: a sample, or all of them."""

    def __call__(self, sample: int, full: int) -> int: ...


class Report(Protocol):
    """Takes a figure in: of which row and fault, how many, and what happened."""

    def __call__(
        self, row: str, fault: str, injected: int, outcome: str, *, seed: int | None = None, bound: str = ""
    ) -> None: ...


def told(figure: Figure) -> str:
    """Return a figure as a line for the terminal."""
    parts = [f"R{figure.row}", figure.fault, f"{figure.injected:,} injected", figure.outcome]
    parts += [f"seed {figure.seed}"] if figure.seed is not None else []
    parts += [f"asked: {figure.bound}"] if figure.bound else []
    return "  ".join(parts)


def write_table(path: Path, figures: Sequence[Figure]) -> None:
    """Write the figures into the table: each replaces the line of its row and fault, the others stay."""
    lines = {_key(line): line for line in (path.read_text().splitlines() if path.exists() else []) if _is_line(line)}
    lines = {key: line for key, line in lines.items() if key[1]}  # not those of rows that had no figure yet
    lines |= {_key(line): line for line in map(_line, figures)}
    missing = set(range(1, ROWS + 1)) - {row for row, _ in lines}
    lines |= {(row, ""): f"| R{row} | | | | not run at full count | | |" for row in missing}
    body = "\n".join(lines[key] for key in sorted(lines))
    path.write_text(f"{INTRODUCTION}\n{_machine()}\n\n{HEADER}{body}\n")


def _is_line(line: str) -> bool:
    return line.startswith("| R") and not line.startswith("| R |")


def _key(line: str) -> tuple[int, str]:
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    return int(cells[0].removeprefix("R")), cells[1]


def _line(figure: Figure) -> str:
    row, fault, injected, seed, outcome, bound = astuple(figure)
    cells = [f"R{row}", fault, f"{injected:,}", "" if seed is None else seed, outcome, bound, date.today()]
    return "| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in cells) + " |"


def _machine() -> str:
    versions = f"Python {platform.python_version()}, torch {version('torch')}, transformers {version('transformers')}"
    return f"Last run on {platform.machine()} with {os.cpu_count()} cores, {platform.system()}; {versions}."
