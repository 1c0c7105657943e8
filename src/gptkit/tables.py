"""Tables of results: plain lines for a pipe, and what fits the width of a terminal, where no figure is ever cut.

Widths are in cells of a terminal, of which a Chinese character takes two and a combining mark none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import compress
from typing import TYPE_CHECKING

from gptkit.system.terminal import safe_text

if TYPE_CHECKING:
    import rich.console

Cells = Sequence[Sequence[str]]  # rows of as many cells as the table has columns
NUMBER = re.compile(r"n/a|[-+]?[\d,]*\.?\d+(e[-+]?\d+)?%?")
LONGEST_NUMBER = 20
WIDEST = 60  # to which a column is padded in a pipe
GAP = 2


def cell(value: object, encoding: str) -> str:
    """Return a cell on one line, with escapes for what `encoding` lacks; a number too long to read is rounded."""
    text = safe_text("n/a" if value is None else str(value)).replace("\n", "\\n").replace("\t", "\\t")
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    if len(text) <= LONGEST_NUMBER or not NUMBER.fullmatch(text):
        return text
    from decimal import Decimal

    return f"{Decimal(text.rstrip('%').replace(',', '')):.4g}" + "%" * text.endswith("%")


def _numeric(columns: Cells) -> list[bool]:
    """Return for each column, whose first cell is its name, whether it has only numbers."""
    return [len(column) > 1 and all(map(NUMBER.fullmatch, column[1:])) for column in columns]


def plain_lines(head: Sequence[str], rows: Cells) -> Iterator[str]:
    """Yield the lines of a table for a pipe; columns of numbers are right-aligned."""
    from rich.cells import cell_len

    columns = [*zip(head, *rows, strict=True)]
    numeric = _numeric(columns)
    widths = [min(WIDEST, max(map(cell_len, column))) for column in columns]  # a longer cell moves only its own row
    for row in (head, ["-" * width for width in widths], *rows):
        line = []
        for text, width, to_right in zip(row, widths, numeric, strict=True):
            padding = " " * (width - cell_len(text))
            line.append(padding + text if to_right else text + padding)
        yield (" " * GAP).join(line).rstrip()


def drawn(head: Sequence[str], rows: Cells, styles: Sequence[str], room: int) -> Iterator[rich.console.RenderableType]:
    """Yield what rich draws: a framed table if it fits, else columns that wrap between words, else blocks of rows."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    columns = [*zip(head, *rows, strict=True)]
    table, widths = Table(), [max(map(cell_len, column)) for column in columns]
    if sum(widths) + 3 * len(widths) + 1 > room:
        kept = [index == 0 or any(column[1:]) for index, column in enumerate(columns)]  # empty columns go first
        columns, rows = [*compress(columns, kept)], [[*compress(row, kept)] for row in rows]
        fitted = _fitted(columns, room - GAP * (len(columns) - 1))
        if fitted is None:
            yield from _blocks([name for name, *_ in columns], rows, styles)
            return
        table, widths = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0)), fitted
    for (name, *_), to_right, width in zip(columns, _numeric(columns), widths, strict=True):
        table.add_column(Text(name), justify="right" if to_right else "left", overflow="fold", width=width)
    for row, style in zip(rows, styles, strict=True):
        table.add_row(*(Text(_isolated(text)) for text in row), style=style)
    yield table


def _fitted(columns: Cells, room: int) -> list[int] | None:
    """Return widths of columns that fill at most `room` cells without breaking a word, None if there are none.

    Only longer words than any figure, such as paths and hashes, may break.
    """
    from rich.cells import cell_len

    words = [[word for text in column for word in text.split()] for column in columns]
    least = [max((min(cell_len(word), LONGEST_NUMBER) for word in column), default=0) for column in words]
    widths = [min(max(map(cell_len, column)), max(room, 0)) for column in columns]
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max(range(len(widths)), key=lambda index: (widths[index] > least[index], widths[index]))
        widths[widest] -= 1
    return widths


def _blocks(head: Sequence[str], rows: Cells, styles: Sequence[str]) -> Iterator[rich.console.RenderableType]:
    """Yield each row as a heading, its first cell, with the other cells below it by name."""
    from rich.columns import Columns
    from rich.padding import Padding
    from rich.styled import Styled
    from rich.text import Text

    for row, style in zip(rows, styles, strict=True):
        named = [(name, text) for name, text in zip(head[1:], row[1:], strict=True) if text]
        pairs = [Text(f"{name} ", "dim", overflow="fold").append(_isolated(text), "not dim") for name, text in named]
        yield Styled(Text(_isolated(row[0]), "bold"), style)
        yield Styled(Padding(Columns(pairs, padding=(0, GAP)), (0, 0, 0, GAP)), style)


def _isolated(text: str) -> str:
    """Return a cell whose right-to-left letters leave the cells beside it where they are."""
    is_reversed = any(unicodedata.bidirectional(char) in ("R", "AL") for char in text)
    return f"\u2068{text}\u2069" if is_reversed else text
