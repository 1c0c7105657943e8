"""Verdicts as Markdown, for the summary page of a CI job, and as the lines that GitHub shows beside a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gptkit.report.text import escape_markdown, one_line


def summary_markdown(headline: str, table: Sequence[Sequence[str]], warnings: Sequence[str] = ()) -> str:
    """Return the verdict, a table of cells (the first row is its header) and the warnings, as Markdown.

    Whatever comes from names is shown as it is, never read as Markdown or HTML.
    """
    verdict, _, rest = headline.partition(":")
    parts = [f"## gptkit eval: {_shown(verdict)}"]
    if rest.strip():
        parts.append(_shown(rest))
    if len(table) > 1:
        parts.append(_table(table))
    if warnings:
        parts.append("\n".join(f"- {_shown(one)}" for one in warnings))
    return "\n\n".join(parts) + "\n"


def annotation(level: Literal["error", "warning"], title: str, text: str) -> str:
    """Return the line by which a job of GitHub Actions shows a text beside its log."""
    escaped = one_line(title).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={escaped}::{one_line(text).replace('%', '%25')}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(_shown(cell) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _shown(text: str) -> str:
    return escape_markdown(one_line(text))
