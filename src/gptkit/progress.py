"""Progress of a long job: a few lines that redraw themselves on a terminal, occasional plain lines elsewhere.

rich is imported only where something is drawn on a terminal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gptkit.system.terminal import safe_text

if TYPE_CHECKING:
    import rich.console
    import rich.table

_STEP_LINES = 100
_EVALUATION_LINES = 40
_TALLY_LINES = 20
_TALLY_PAUSE = 3.0  # seconds between two lines


class Progress:
    """A training run: lines that redraw themselves where it is `live`, a bar, the latest figures and sample of text.

    Elsewhere it is plain lines, at most about 100 of steps and 40 of validations, however long it is.
    """

    def __init__(self, total_steps: int, say: Callable[[str], None], *, live: bool = False) -> None:
        self.total_steps = total_steps
        self.say = say
        self.live = live
        self._began = time.monotonic()
        self._origin: tuple[int, float] | None = None
        self._next_step = 0
        self._next_evaluation = 0
        self._step = 0
        self._end: float | None = None
        self._figures: dict[str, str] = {}
        self._sample = ""

    def step(self, step: int, figures: Mapping[str, str]) -> None:
        """Show a logged step's figures by name."""
        left = self.eta(step)
        self._step, self._end = step, None if left is None else time.monotonic() + left
        self._figures |= figures
        if self.live or (step < self._next_step and step != self.total_steps):
            return
        self._next_step = step + max(1, self.total_steps // _STEP_LINES)
        shown = [f"{value} {name}" if name.endswith("/s") else f"{name} {value}" for name, value in figures.items()]
        times = [f"elapsed {_clock(self.elapsed())}", f"eta {_clock(left)}"]
        self.say("  ".join([f"step {step}/{self.total_steps}", *shown, *times]))

    def evaluation(self, step: int, metrics: Mapping[str, float], *, sample: str | None = None) -> None:
        """Show an evaluation's metrics by name (val loss, bits/byte), with a sample of text."""
        shown = {name.replace("_per_", "/").replace("_", " "): f"{value:.4f}" for name, value in metrics.items()}
        self._figures |= shown | {"at step": f"{step}"}
        self._sample = sample or self._sample
        if self.live or (step < self._next_evaluation and step != self.total_steps):
            return
        self._next_evaluation = step + max(1, self.total_steps // _EVALUATION_LINES)
        self.say("  ".join([f"eval {step}/{self.total_steps}", *(f"{name} {value}" for name, value in shown.items())]))
        if sample:
            self.say(f"sample  {_one_line(sample, 160)}")

    def checkpoint(self, step: int) -> None:
        """Show that a checkpoint is committed; among plain lines one each would be too many."""
        self._figures["saved"] = f"{step}"

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

    def render(self) -> rich.console.Group:
        """Return what is drawn; rich calls this twice a second."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid(padding=(0, 2))
        left = None if self._end is None else max(0.0, self._end - time.monotonic())
        share = ProgressBar(total=self.total_steps, completed=self._step, width=32)
        times = Text(f"elapsed {_clock(self.elapsed())}  eta {_clock(left)}")
        bar.add_row(Text(f"step {self._step}/{self.total_steps}"), share, times)
        figures = Table.grid(padding=(0, 2))
        figures.add_row(*(Text(name, style="dim") for name in self._figures))
        figures.add_row(*(Text(value, style="bold") for value in self._figures.values()))
        sample = Text(_one_line(self._sample, 240), style="italic")
        return Group(bar, figures, sample) if self._sample else Group(bar, figures)


class Tally:
    """How many of `total` samples, or of what `noun` says, are done, `done` of them before.

    It is a bar that redraws itself where it is `live`, elsewhere plain lines: one at the end, and before it at most
    about 20, seconds apart.
    """

    def __init__(
        self, total: int, done: int, say: Callable[[str], None], noun: str = "samples", *, live: bool = False
    ) -> None:
        self.total = total
        self.done = done
        self.say = say
        self.noun = noun
        self.live = live
        self.tokens = 0
        self._before = done
        self._began = time.monotonic()
        self._said = 0.0  # when a line was said, in seconds since the start

    def add(self, tokens: int) -> None:
        """Count one sample more, of so many tokens."""
        self.tokens += tokens
        self.reach(self.done + 1)

    def reach(self, done: int) -> None:
        """Count up to a total of `done`."""
        before, self.done = self.done, done
        each, elapsed = max(1, self.total // _TALLY_LINES), time.monotonic() - self._began
        is_time = done == self.total or (done // each > before // each and elapsed >= self._said + _TALLY_PAUSE)
        if done > before and is_time and not self.live:
            self._said = elapsed
            self.say("  ".join([self._count(), *self.figures()]))

    def figures(self) -> list[str]:
        """Return the pace so far, in words."""
        elapsed = time.monotonic() - self._began
        drawn = self.done - self._before
        left = elapsed / drawn * (self.total - self.done) if drawn else None
        rate = max(elapsed, 1e-9)
        speed = f"{self.tokens / rate:,.0f} tokens/s" if self.tokens else f"{drawn / rate:,.0f} {self.noun}/s"
        return [speed, f"elapsed {_clock(elapsed)}", f"eta {_clock(left)}"]

    def render(self) -> rich.table.Table:
        """Return what is drawn."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        row = Table.grid(padding=(0, 2))
        share = ProgressBar(total=max(1, self.total), completed=self.done, width=24)
        row.add_row(Text(self._count()), share, Text("  ".join(self.figures())))
        return row

    def _count(self) -> str:
        return f"{self.noun} {self.done:,}/{self.total:,}"


def _one_line(text: str, limit: int) -> str:
    """Return `text` made safe on one line, quoted, cut after `limit` characters."""
    line = safe_text(text).replace("\n", "\\n").replace("\t", "\\t")
    return f'"{line[:limit]}..."' if len(line) > limit else f'"{line}"'


def _clock(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return "-:--"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
