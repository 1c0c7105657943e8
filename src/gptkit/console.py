"""What users see: results on stdout, the rest on stderr; live on a terminal, occasional plain lines elsewhere.

Whatever comes from models, data or file names passes `safe_text` on its way out, and rich never reads it as markup.
rich is imported only where something is drawn on a terminal.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from gptkit.progress import Progress, Tally
from gptkit.system.terminal import has_colour, is_live, json_line, safe_text

if TYPE_CHECKING:
    import rich.console

Display = TypeVar("Display", Progress, Tally)
_NUMBER = re.compile(r"n/a|[-+]?[\d,]*\.?\d+(e[-+]?\d+)?%?")


class Console:
    """Where a command speaks.

    `command_line` is what the user typed, quoted for a shell; `recipe_note`, if not empty, is what a recipe that the
    user did not name sets, for the command to say when all is checked. A command that has a run directory sets
    `run_directory`, so that the log of a bug is written there. With `json` results are silent: the one object on stdout
    is printed at the end. Processes of rank above 0 say nothing.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        command_line: str = "gptkit",
        recipe_note: str = "",
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.json = json
        self.command_line = command_line
        self.recipe_note = recipe_note
        self.run_directory: Path | None = None
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._environment = environment
        self._silent = environment.get("RANK", "0") not in ("", "0")
        self._live: rich.console.Console | None = None

    def say(self, text: str) -> None:
        """Write a line of the log to stderr."""
        if not self._silent:
            self._log(safe_text(text))

    def warn(self, text: str) -> None:
        """Write a warning to stderr."""
        if not self._silent:
            self._log(self._styled("warning:", "33") + f" {safe_text(text)}")

    def error(self, text: str) -> None:
        """Write an error to stderr, on every rank, as one line."""
        self._log(self._styled("error:", "31") + f" {safe_text(' '.join(text.split()))}")

    def result(self, text: str) -> None:
        """Write a result to stdout; nothing with --json."""
        self._write(safe_text(text) + "\n")

    def stream(self, text: str) -> None:
        """Write a piece of generated text to stdout, at once: as it is in a pipe; nothing with --json."""
        self._write(safe_text(text) if self._stdout.isatty() else text)

    @property
    def is_watched(self) -> bool:
        """Whether results go to a terminal, where somebody waits for each piece of text."""
        return self._stdout.isatty() and not self.json

    def _write(self, text: str) -> None:
        if not self._silent and not self.json:
            self._print(text)

    def _print(self, text: str) -> None:
        """Write to stdout; an OSError names it."""
        try:
            self._stdout.write(text)
            self._stdout.flush()
        except OSError as error:
            error.filename = "stdout"
            raise

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], colours: Sequence[str] = ()
    ) -> None:
        """Write a table of results to stdout; columns whose cells are all numbers are right-aligned.

        `colours`, if given, are those of the rows where there is colour: red, yellow, green.
        """
        if self._silent or self.json:
            return
        title, head = safe_text(title), [safe_text(name) for name in columns]
        cells = [[safe_text("n/a" if cell is None else str(cell)).replace("\n", "\\n") for cell in row] for row in rows]
        right = [bool(cells) and all(_NUMBER.fullmatch(row[index]) for row in cells) for index in range(len(head))]
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        if not has_colour(self._stdout, self._environment):
            lines = [
                "  ".join(
                    cell.rjust(width) if to_right else cell.ljust(width)
                    for cell, width, to_right in zip(row, widths, right, strict=True)
                ).rstrip()
                for row in (head, ["-" * width for width in widths], *cells)
            ]
            self._print("\n".join([title, *lines] if title else lines) + "\n")
            return
        from rich.table import Table
        from rich.text import Text

        screen, table = self._rich(self._stdout), Table(title=Text(title, style="bold"), title_justify="left")
        if sum(widths) + 3 * len(widths) + 1 > screen.width:  # no room for a frame
            table.box, table.pad_edge, table.collapse_padding = None, False, True
        for name, to_right in zip(head, right, strict=True):
            table.add_column(Text(name), justify="right" if to_right else "left", overflow="fold")
        for number, row in enumerate(cells):
            table.add_row(*(Text(cell) for cell in row), style=colours[number] if colours else None)
        screen.print(table)

    def print_json(self, payload: Mapping[str, Any]) -> None:
        """Write the one JSON object of --json to stdout."""
        if not self._silent:
            self._print(json_line(payload) + "\n")

    def progress(self, total_steps: int) -> AbstractContextManager[Progress]:
        """Return a context that shows the training inside it, up to `total_steps`."""
        return self._drawn(Progress(total_steps, self.say, live=self._shows_live()))

    def tally(self, total: int, done: int = 0, noun: str = "samples") -> AbstractContextManager[Tally]:
        """Return a context that shows how many of `total` samples are done, `done` of them from the start."""
        return self._drawn(Tally(total, done, self.say, noun, live=self._shows_live()))

    def _shows_live(self) -> bool:
        return not self._silent and is_live(self._stderr, self._environment)

    @contextlib.contextmanager
    def _drawn(self, display: Display) -> Iterator[Display]:
        """Draw what a live display renders twice a second; lines of the log go above it."""
        if not display.live:
            yield display
            return
        from rich.live import Live

        screen = self._rich(self._stderr)
        live = Live(get_renderable=display.render, console=screen, refresh_per_second=2)
        with contextlib.suppress(OSError):  # the terminal may be closed, here and below
            live.start()
        self._live = screen
        try:
            yield display
        finally:
            self._live = None
            with contextlib.suppress(OSError):
                live.stop()

    def _log(self, line: str) -> None:
        # A log nobody reads any more must not end a training run.
        with contextlib.suppress(OSError):
            live = self._live  # read once: the display may end while another thread speaks
            if live is not None:
                from rich.text import Text

                live.print(Text.from_ansi(line), soft_wrap=True)
            else:
                self._stderr.write(f"{line}\n")  # in one call, since other threads write too
                self._stderr.flush()

    def _styled(self, word: str, sgr: str) -> str:
        return f"\x1b[1;{sgr}m{word}\x1b[0m" if has_colour(self._stderr, self._environment) else word

    def _rich(self, stream: TextIO) -> rich.console.Console:
        from rich.console import Console as RichConsole

        coloured = has_colour(stream, self._environment)
        return RichConsole(
            file=stream,
            force_terminal=True,
            color_system="auto" if coloured else None,
            no_color=not coloured,
            markup=False,
            highlight=False,
            emoji=False,
        )
