"""Console output: results on stdout, everything else on stderr.

The progress of a long job is a live display on a terminal, occasional plain lines elsewhere. All text from models, data
or file names passes through `safe_text`, and rich never reads it as markup. rich is imported only where it draws.
"""

from __future__ import annotations

import codecs
import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from gptkit.system.terminal import has_colour, is_attended, is_live, safe_text, terminal_columns
from gptkit.system.writing import json_line
from gptkit.tables import cell, drawn, plain_lines

if TYPE_CHECKING:
    import rich.columns
    import rich.console

Display = TypeVar("Display", "Progress", "Tally")

_STEP_LINES = 100
_EVALUATION_LINES = 40
_TALLY_LINES = 20
_TALLY_PAUSE = 3.0  # seconds between lines


class NoReader(Exception):
    """Nobody reads stdout any more, and the command only writes there."""


class Console:
    """The output of a command.

    `command_line` is what the user typed, quoted for a shell. `recipe_note` lists what a default recipe sets, for the
    command to log once its options are validated. A command with a run directory sets `run_directory`, where the log of
    a bug is then written. With `json`, results are suppressed: stdout gets a single object at the end. Processes of
    rank above 0 print only errors. `has_reader` turns false when the reader of stdout has gone.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        command_line: str = "gptkit",
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.json = json
        self.command_line = command_line
        self.recipe_note = ""
        self.run_directory: Path | None = None
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._environment = environment
        self._silent = environment.get("RANK", "0") not in ("", "0")
        self.has_reader = True
        self._live: rich.console.Console | None = None

    def say(self, text: str) -> None:
        """Write a log line to stderr."""
        if not self._silent:
            self._log(safe_text(text))

    def warn(self, text: str) -> None:
        """Write a warning to stderr."""
        if not self._silent:
            self._log(self._styled("warning:", "33") + f" {safe_text(text)}")

    def error(self, text: str) -> None:
        """Write an error to stderr as one line, on every rank."""
        self._log(self._styled("error:", "31") + f" {safe_text(' '.join(text.split()))}")

    def result(self, text: str) -> None:
        """Write a result to stdout, but nothing with --json."""
        self._write(safe_text(text) + "\n")

    def stream(self, text: str) -> None:
        """Write a piece of generated text to stdout at once, in a pipe unescaped; nothing with --json.

        Raises NoReader once nobody reads stdout: the rest need not be generated.
        """
        self._write(safe_text(text) if self._stdout.isatty() else text)
        if not self.has_reader:
            raise NoReader

    def record(self, result: Mapping[str, Any]) -> None:
        """Write a result to stdout at once, as a line of JSON; nothing with --json. Raises what `stream` raises."""
        self._write(json_line(result, ascii_only=self._encoding != "utf-8") + "\n")
        if not self.has_reader:
            raise NoReader

    @property
    def is_watched(self) -> bool:
        """Whether results go to a terminal, where somebody may be waiting for the text."""
        return self._stdout.isatty() and not self.json

    def _write(self, text: str) -> None:
        if not self._silent and not self.json:
            self._print(text)

    def _print(self, text: str) -> None:
        """Write to stdout unless its reader has gone; an OSError has its name."""
        try:
            self._stdout.write(text)
            self._stdout.flush()
        except BrokenPipeError:  # such as `| head -1`: neither the work nor its exit code depends on a reader
            self.has_reader = False
        except OSError as error:
            error.filename = "stdout"
            raise

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], colours: Sequence[str] = ()
    ) -> None:
        """Write a table of results to stdout; columns of numbers are right-aligned.

        `colours`, if given, has one for each row (red, yellow, green); plain output ignores it.
        """
        if self._silent or self.json:
            return
        title, encoding = safe_text(title), self._encoding
        head, *cells = [[cell(value, encoding) for value in row] for row in (columns, *rows)]
        if not is_attended(self._stdout, self._environment):
            self._print("\n".join([*filter(None, [title]), *plain_lines(head, cells)]) + "\n")
            return
        from rich.text import Text

        width = terminal_columns(self._stdout, self._environment)
        parts = drawn(head, cells, list(colours) or [""] * len(cells), width)
        screen = self._rich(self._stdout, width)
        for part in (Text(title, "bold"), *parts) if title else parts:
            screen.print(part)

    def tokens(self, pieces: Sequence[str], notes: Sequence[str], colours: Sequence[str] = ()) -> None:
        """Write tokens to stdout, each with a note: on a terminal in `colours` or alternating, else one per line."""
        if self._silent or self.json:
            return
        pieces = [safe_text(piece) for piece in pieces]
        if not is_attended(self._stdout, self._environment):
            self._print("".join(f"{note} {piece}\n" for piece, note in zip(pieces, notes, strict=True)))
            return
        from rich.cells import cell_len, chop_cells
        from rich.text import Text

        screen = self._rich(self._stdout)
        above, below = Text(), Text()
        colours = colours or [("cyan", "magenta")[number % 2] for number in range(len(pieces))]
        for piece, note, colour in zip(pieces, notes, colours, strict=True):
            for part in chop_cells(piece, max(2, screen.width - 1)) or [""]:
                width = max(cell_len(part), len(note)) + 1
                if above and cell_len(above.plain) + width > screen.width:
                    screen.print(above, below, sep="\n", soft_wrap=True)
                    above, below = Text(), Text()
                above.append(part, style=f"bold {colour}")
                above.append(" " * (width - cell_len(part)))
                below.append(note.ljust(width), style="dim")
                note = ""  # below the first part only
        screen.print(above, below, sep="\n", soft_wrap=True)

    def print_json(self, payload: Mapping[str, Any]) -> None:
        """Write the one JSON object of --json to stdout."""
        if not self._silent:
            self._print(json_line(payload, ascii_only=self._encoding != "utf-8") + "\n")

    @property
    def _encoding(self) -> str:
        """The encoding of stdout, by Python's name."""
        return codecs.lookup(getattr(self._stdout, "encoding", None) or "utf-8").name

    def progress(self, total_steps: int, done: int = 0) -> AbstractContextManager[Progress]:
        """Return a context that displays a training run of `total_steps`, of which `done` were taken before."""
        return self._drawn(Progress(total_steps, self.say, done=done, live=self._shows_live()))

    def tally(self, total: int, done: int = 0, noun: str = "samples") -> AbstractContextManager[Tally]:
        """Return a context that counts samples up to `total`, of which `done` exist already."""
        return self._drawn(Tally(total, done, self.say, noun, live=self._shows_live()))

    def _shows_live(self) -> bool:
        return not self._silent and is_live(self._stderr, self._environment)

    @contextlib.contextmanager
    def _drawn(self, display: Display) -> Iterator[Display]:
        """Redraw a live display twice a second, with log lines above it."""
        if not display.live:
            yield display
            return
        from rich.live import Live

        screen = self._rich(self._stderr)
        live = Live(get_renderable=display.render, console=screen, refresh_per_second=2)
        with contextlib.suppress(OSError):  # the terminal may be gone, here and below
            live.start()
        self._live = screen
        try:
            yield display
        finally:
            self._live = None
            display.is_over = True
            with contextlib.suppress(OSError):
                live.stop()

    def _log(self, line: str) -> None:
        # A closed stderr must not end a training run.
        with contextlib.suppress(OSError):
            live = self._live  # read once: the display may end while another thread logs
            if live is not None:
                from rich.text import Text

                live.print(Text.from_ansi(line), soft_wrap=True)
            else:
                self._stderr.write(f"{line}\n")  # one call, since other threads write too
                self._stderr.flush()

    def _styled(self, word: str, sgr: str) -> str:
        return f"\x1b[1;{sgr}m{word}\x1b[0m" if has_colour(self._stderr, self._environment) else word

    def _rich(self, stream: TextIO, width: int | None = None) -> rich.console.Console:
        from rich.console import Console as RichConsole

        coloured = has_colour(stream, self._environment)
        return RichConsole(
            file=stream,
            width=width,
            force_terminal=True,
            color_system="auto" if coloured else None,
            no_color=not coloured,
            markup=False,
            highlight=False,
            emoji=False,
        )


class Progress:
    """Progress of a training run: if `live`, a bar, the latest figures and a sample of text.

    Otherwise plain lines: at most about 100 for steps and 40 for validations. A resumed run has taken `done` steps.
    """

    def __init__(self, total_steps: int, say: Callable[[str], None], *, done: int = 0, live: bool = False) -> None:
        self.total_steps = total_steps
        self.say = say
        self.live = live
        self.is_over = False
        self._began = time.monotonic()
        self._origin: tuple[int, float] | None = None
        self._next_step = 0
        self._next_evaluation = 0
        self._step = done
        self._end: float | None = None
        self._figures: dict[str, str] = {}
        self._sample = ""

    def step(self, step: int, figures: Mapping[str, str], *, pace: float | None = None) -> None:
        """Show the figures of a logged step, by name; `pace` is the seconds that a step takes, as it measured them."""
        left = self.eta(step, pace)
        self._step, self._end = step, None if left is None else time.monotonic() + left
        self._figures |= figures
        if self.live or (step < self._next_step and step != self.total_steps):
            return
        self._next_step = step + max(1, self.total_steps // _STEP_LINES)
        shown = [f"{value} {name}" if name.endswith("/s") else f"{name} {value}" for name, value in figures.items()]
        times = [f"elapsed {_clock(self.elapsed())}", f"eta {_clock(left)}"]
        self.say("  ".join([f"step {step}/{self.total_steps}", *shown, *times]))

    def evaluation(self, step: int, metrics: Mapping[str, float], *, sample: str | None = None) -> None:
        """Show the metrics of an evaluation by name (val_loss, bits_per_byte), and a sample of text."""
        names = [name.replace("_per_", "/").replace("_", " ") for name in metrics]
        shown = dict(zip(names, map(_figure, metrics.values()), strict=True))
        self._figures |= shown | {"at step": f"{step}"}
        self._step = step
        self._sample = sample or self._sample
        if self.live or (step < self._next_evaluation and step != self.total_steps):
            return
        self._next_evaluation = step + max(1, self.total_steps // _EVALUATION_LINES)
        self.say("  ".join([f"eval {step}/{self.total_steps}", *(f"{name} {value}" for name, value in shown.items())]))
        if sample:
            self.say(f"sample  {_one_line(sample, 160)}")

    def checkpoint(self, step: int) -> None:
        """Show that a checkpoint is committed, in the live display only."""
        self._figures["saved"] = f"{step}"
        self._step = step

    def elapsed(self) -> float:
        """Return the seconds since the display started."""
        return time.monotonic() - self._began

    def eta(self, step: int, pace: float | None = None) -> float | None:
        """Return the seconds left, from the pace since the first logged step, before that from the `pace` given.

        Neither includes compilation.
        """
        now = time.monotonic()
        if self._origin is None or self._origin[0] >= step:
            self._origin = (step, now)
            return None if pace is None else pace * (self.total_steps - step)
        first, began = self._origin
        return (now - began) / (step - first) * (self.total_steps - step)

    def render(self) -> rich.console.Group:
        """Return what rich draws."""
        from rich.columns import Columns
        from rich.console import Group
        from rich.text import Text

        left = None if self._end is None else max(0.0, self._end - time.monotonic())
        times = [f"elapsed {_clock(self.elapsed())}", f"eta {_clock(left)}"]
        bar = _bar(f"step {self._step}/{self.total_steps}", self._step, self.total_steps, times, self.is_over, width=32)
        pairs = [Text(f"{name}\n", "dim").append(value, "not dim bold") for name, value in self._figures.items()]
        figures = Columns(pairs, padding=(0, 2))
        sample = Text(_one_line(self._sample, 240), style="italic")
        return Group(bar, figures, sample) if self._sample else Group(bar, figures)


class Tally:
    """A count of samples, or of what `noun` names, up to `total`, of which `done` exist already.

    If `live` it is a bar, otherwise plain lines: one at the end, and before it at most about 20, seconds apart.
    """

    def __init__(
        self, total: int, done: int, say: Callable[[str], None], noun: str = "samples", *, live: bool = False
    ) -> None:
        self.total = total
        self.done = done
        self.say = say
        self.noun = noun
        self.live = live
        self.is_over = False
        self.tokens = 0
        self._before = done
        self._began = time.monotonic()
        self._logged = 0.0  # when the last line was logged, in seconds since the start

    def add(self, tokens: int) -> None:
        """Count one more sample, of `tokens` tokens."""
        self.tokens += tokens
        self.reach(self.done + 1)

    def reach(self, done: int) -> None:
        """Count up to a total of `done`."""
        before, self.done = self.done, done
        interval, elapsed = max(1, self.total // _TALLY_LINES), time.monotonic() - self._began
        is_due = done // interval > before // interval and elapsed >= self._logged + _TALLY_PAUSE
        if done > before and (is_due or done == self.total) and not self.live:
            self._logged = elapsed
            self.say("  ".join([self._count(), *self.figures()]))

    def figures(self) -> list[str]:
        """Return the speed, the elapsed time and the time left, in words."""
        elapsed = time.monotonic() - self._began
        drawn = self.done - self._before
        left = elapsed / drawn * (self.total - self.done) if drawn else None
        rate = max(elapsed, 1e-9)
        speed = f"{self.tokens / rate:,.0f} tokens/s" if self.tokens else f"{drawn / rate:,.0f} {self.noun}/s"
        return [speed, f"elapsed {_clock(elapsed)}", f"eta {_clock(left)}"]

    def render(self) -> rich.columns.Columns:
        """Return what rich draws."""
        return _bar(self._count(), self.done, max(1, self.total), self.figures(), self.is_over, width=24)

    def _count(self) -> str:
        return f"{self.noun} {self.done:,}/{self.total:,}"


def _bar(label: str, done: int, total: int, notes: Sequence[str], is_over: bool, *, width: int) -> rich.columns.Columns:
    """Return a label, a progress bar and notes, the last of which is the time left; as many lines as they need."""
    from rich.columns import Columns
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 2))
    row.add_row(Text(label), ProgressBar(total=total, completed=done, width=width))
    return Columns([row, Text("  ".join(notes[:-1] if is_over else notes))], padding=(0, 2))


def _figure(value: float) -> str:
    return "n/a" if not math.isfinite(value) else f"{value:.4f}" if abs(value) < 1e9 else f"{value:.4g}"


def _one_line(text: str, limit: int) -> str:
    """Return `text` escaped on one line, quoted, truncated after `limit` cells of a terminal."""
    from rich.cells import chop_cells

    line = safe_text(text).replace("\n", "\\n").replace("\t", "\\t")
    start = chop_cells(line, limit)[0] if line else ""
    return f'"{start}..."' if start != line else f'"{line}"'


def _clock(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return "-:--"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
