"""What users see: results on stdout, the rest on stderr; live on a terminal, occasional plain lines elsewhere.

Whatever comes from models, data or file names passes `safe_text` on its way out, and rich never reads it as markup.
rich is imported only where something is drawn on a terminal.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import rich.console

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_STEP_LINES = 100
_EVALUATION_LINES = 40
_LIVE_COLUMNS = 60


def safe_text(text: str) -> str:
    """Return `text` with all that could drive a terminal shown as visible escapes.

    These are C0 except newline and tab, DEL, C1, bidirectional overrides and isolates, and lone surrogates.
    """
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def is_live(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Say whether a display that redraws itself may go to `stream`: a terminal that holds its lines unbroken."""
    return _is_attended(stream, environment) and _columns(stream, environment) >= _LIVE_COLUMNS


def _is_attended(stream: TextIO, environment: Mapping[str, str]) -> bool:
    unattended = environment.get("GITHUB_ACTIONS") or environment.get("CI") or environment.get("TERM") == "dumb"
    return stream.isatty() and not unattended


def _columns(stream: TextIO, environment: Mapping[str, str]) -> int:
    """Return the width of a terminal, as rich finds it: COLUMNS, what the terminal says, else 80."""
    if (said := environment.get("COLUMNS", "")).isdecimal():
        return int(said)
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


def has_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Say whether `stream` may get colours."""
    # The console of Windows shows escape codes as text unless it is Windows Terminal.
    understood = os.name != "nt" or bool(environment.get("WT_SESSION"))
    return understood and _is_attended(stream, environment) and not environment.get("NO_COLOR")


def json_line(payload: Mapping[str, Any]) -> str:
    """Return one line of ASCII JSON; numbers that are not finite become null, paths strings."""
    return json.dumps(_finite(payload), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


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

    def _write(self, text: str) -> None:
        if not self._silent and not self.json:
            print(text, end="", file=self._stdout, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write a table of results to stdout; columns whose cells are all numbers are right-aligned."""
        if self._silent or self.json:
            return
        head = [safe_text(name) for name in columns]
        cells = [[safe_text("n/a" if cell is None else str(cell)).replace("\n", "\\n") for cell in row] for row in rows]
        right = [bool(cells) and all(_is_number(row[index]) for row in cells) for index in range(len(head))]
        if has_colour(self._stdout, self._environment):
            self._rich_table(safe_text(title), head, cells, right)
        else:
            print(_plain_table(safe_text(title), head, cells, right), file=self._stdout, flush=True)

    def print_json(self, payload: Mapping[str, Any]) -> None:
        """Write the one JSON object of --json to stdout."""
        if not self._silent:
            print(json_line(payload), file=self._stdout, flush=True)

    @contextlib.contextmanager
    def progress(self, total_steps: int) -> Iterator[Progress]:
        """Show the training that goes on inside the `with`, up to `total_steps`."""
        if self._silent or not is_live(self._stderr, self._environment):
            yield PlainProgress(total_steps, self)
            return
        from rich.live import Live

        screen = self._rich(self._stderr)
        shown = LiveProgress(total_steps, self)
        with Live(get_renderable=shown.render, console=screen, refresh_per_second=2):
            self._live = screen
            try:
                yield shown
            finally:
                self._live = None

    def _log(self, line: str) -> None:
        # A log nobody reads any more must not end a training run.
        with contextlib.suppress(OSError):
            if self._live is not None:
                from rich.text import Text

                self._live.print(Text.from_ansi(line), soft_wrap=True)
            else:
                print(line, file=self._stderr, flush=True)

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

    def _rich_table(
        self, title: str, head: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]
    ) -> None:
        from rich.table import Table
        from rich.text import Text

        screen, table = self._rich(self._stdout), Table(title=Text(title, style="bold"), title_justify="left")
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        if sum(widths) + 3 * len(widths) + 1 > screen.width:  # no room for a frame
            table.box, table.pad_edge, table.collapse_padding = None, False, True
        for name, to_right in zip(head, right, strict=True):
            table.add_column(Text(name), justify="right" if to_right else "left", overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        screen.print(table)


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"n/a|[-+]?[\d,]*\.?\d+(e[-+]?\d+)?%?", cell) is not None


def _plain_table(title: str, head: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in (head, ["-" * width for width in widths], *cells)
    ]
    return "\n".join([title, *lines] if title else lines)


class Progress(ABC):
    """The state of a training run as plain values; subclasses show it."""

    def __init__(self, total_steps: int, console: Console) -> None:
        self.total_steps = total_steps
        self.console = console
        self._began = time.monotonic()
        self._origin: tuple[int, float] | None = None

    @abstractmethod
    def step(
        self, step: int, *, loss: float, learning_rate: float, tokens_per_second: float, mfu: float | None = None
    ) -> None:
        """Show a logged step; `mfu` is a share of the peak, None where that is unknown."""

    @abstractmethod
    def evaluation(self, step: int, metrics: Mapping[str, float], *, sample: str | None = None) -> None:
        """Show an evaluation's metrics by name, with a sample of text."""

    @abstractmethod
    def checkpoint(self, step: int) -> None:
        """Show that a checkpoint of `step` is committed."""

    def notice(self, text: str) -> None:
        """Show a line that stays."""
        self.console.say(text)

    def elapsed(self) -> float:
        """Return the seconds since the display began."""
        return time.monotonic() - self._began

    def eta(self, step: int) -> float | None:
        """Return the seconds left, from the pace since the first logged step: compiling is left out."""
        now = time.monotonic()
        if self._origin is None or self._origin[0] >= step:
            self._origin = (step, now)
            return None
        first, began = self._origin
        return (now - began) / (step - first) * (self.total_steps - step)


class PlainProgress(Progress):
    """Occasional lines: at most about 100 of steps and 40 of validations, however long the run."""

    def __init__(self, total_steps: int, console: Console) -> None:
        super().__init__(total_steps, console)
        self._next_step = 0
        self._next_evaluation = 0

    def step(
        self, step: int, *, loss: float, learning_rate: float, tokens_per_second: float, mfu: float | None = None
    ) -> None:
        left = self.eta(step)
        if step < self._next_step and step != self.total_steps:
            return
        self._next_step = step + max(1, self.total_steps // _STEP_LINES)
        parts = [
            f"step {step}/{self.total_steps}",
            f"loss {loss:.4f}",
            f"lr {learning_rate:.2e}",
            f"{tokens_per_second:,.0f} tokens/s",
            f"mfu {_share(mfu)}",
            f"elapsed {_clock(self.elapsed())}",
            f"eta {_clock(left)}",
        ]
        self.console.say("  ".join(parts))

    def evaluation(self, step: int, metrics: Mapping[str, float], *, sample: str | None = None) -> None:
        if step < self._next_evaluation and step != self.total_steps:
            return
        self._next_evaluation = step + max(1, self.total_steps // _EVALUATION_LINES)
        figures = "  ".join(f"{_named(name)} {value:.4f}" for name, value in metrics.items())
        self.console.say(f"eval {step}/{self.total_steps}  {figures}")
        if sample:
            self.console.say(f"sample  {_one_line(sample, 160)}")

    def checkpoint(self, step: int) -> None:
        """Show nothing: a line each would be too many."""


class LiveProgress(Progress):
    """A few lines that redraw themselves: a bar, the latest figures and the latest sample of text."""

    def __init__(self, total_steps: int, console: Console) -> None:
        super().__init__(total_steps, console)
        self._step = 0
        self._eta: tuple[float, float] | None = None
        self._figures: dict[str, str] = {}
        self._sample = ""

    def step(
        self, step: int, *, loss: float, learning_rate: float, tokens_per_second: float, mfu: float | None = None
    ) -> None:
        left = self.eta(step)
        self._step = step
        self._eta = None if left is None else (time.monotonic(), left)
        self._figures |= {
            "loss": f"{loss:.4f}",
            "lr": f"{learning_rate:.2e}",
            "tokens/s": f"{tokens_per_second:,.0f}",
            "mfu": _share(mfu),
        }

    def evaluation(self, step: int, metrics: Mapping[str, float], *, sample: str | None = None) -> None:
        self._figures |= {_named(name): f"{value:.4f}" for name, value in metrics.items()} | {"at step": f"{step}"}
        self._sample = sample or self._sample

    def checkpoint(self, step: int) -> None:
        self._figures["saved"] = f"{step}"

    def render(self) -> rich.console.Group:
        """Return what is drawn; rich calls this twice a second."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid(padding=(0, 2))
        times = f"elapsed {_clock(self.elapsed())}  eta {_clock(self._left())}"
        share = ProgressBar(total=self.total_steps, completed=self._step, width=32)
        bar.add_row(Text(f"step {self._step}/{self.total_steps}"), share, Text(times))
        figures = Table.grid(padding=(0, 2))
        figures.add_row(*(Text(name, style="dim") for name in self._figures))
        figures.add_row(*(Text(value, style="bold") for value in self._figures.values()))
        sample = Text(_one_line(self._sample, 240), style="italic")
        return Group(bar, figures, sample) if self._sample else Group(bar, figures)

    def _left(self) -> float | None:
        if self._eta is None:
            return None
        when, left = self._eta
        return max(0.0, left - (time.monotonic() - when))


def _named(metric: str) -> str:
    """Return a metric's name as people read it: val loss, bits/byte."""
    return metric.replace("_per_", "/").replace("_", " ")


def _one_line(text: str, limit: int) -> str:
    """Return `text` made safe on one line, quoted, cut after `limit` characters."""
    line = safe_text(text).replace("\n", "\\n").replace("\t", "\\t")
    return f'"{line[:limit]}..."' if len(line) > limit else f'"{line}"'


def _share(share: float | None) -> str:
    return "n/a" if share is None else f"{share:.1%}"


def _clock(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return "-:--"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
