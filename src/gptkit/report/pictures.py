"""What every picture has in common: a title that is text, whatever it is made of, and a file without a date."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from gptkit.report.text import one_line

LONGEST_TITLE = 100


def set_title(axes: Any, text: str, **settings: Any) -> None:
    """Give a matplotlib picture a title in which no dollar begins mathematics."""
    title = one_line(text)
    title = title if len(title) <= LONGEST_TITLE else title[: LONGEST_TITLE - 3] + "..."
    axes.set_title(title, parse_math=False, **settings)


def save(figure: Any, path: Path) -> None:
    """Write a figure as a picture; the same figure gives the same bytes, for no version is inside."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it is drawn as a box
        figure.savefig(path, dpi=150, metadata={"Software": None})
