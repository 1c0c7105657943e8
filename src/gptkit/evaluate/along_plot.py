"""Zero-shot scores along a run, drawn as GPT-1's figure 2 (right): updates against shares of the best published."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any, NamedTuple

from gptkit.report.plots import save, set_title

# Okabe and Ito's colours, which colour-blind readers tell apart; dashes and markers where there are more curves.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", "--", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class Curve(NamedTuple):
    """A task's protocol along a run: scores (checkpoint,) between chance, 0, and the best published, 1, by step."""

    name: str
    steps: Sequence[int]
    scores: Sequence[float]


def draw_zero_shot(curves: Sequence[Curve], path: Path, title: str) -> None:
    """Write the curves as a picture, the updates on a logarithmic axis; the same curves give the same bytes.

    Step 0 has no place on that axis and is left out.
    """
    from matplotlib.figure import Figure  # no pyplot: no display is looked for and no state is kept

    figure = Figure(figsize=(7.6, 4.2 + 0.17 * max(0, len(curves) - 22)), layout="constrained")
    axes = figure.subplots()
    for number, curve in enumerate(curves):
        _draw_curve(axes, curve, number)
    _mark(axes, 0.0, "chance", side="right", below=True)  # where curves seldom are
    _mark(axes, 1.0, "best published, or all right", side="left", below=False)
    axes.set_xscale("log")
    steps = _apart({step for curve in curves for step in curve.steps if step > 0})
    axes.set_xticks(steps, labels=[f"{step:,}" for step in steps])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="updates", ylabel="score, from chance to the best")
    set_title(axes, title, loc="left", fontsize=10)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    # In the order in which the curves end at the right.
    lines = sorted(zip(curves, axes.get_lines(), strict=False), key=lambda pair: -pair[0].scores[-1])
    figure.legend(handles=[line for _, line in lines], loc="outside right upper", frameon=False, fontsize=8)
    save(figure, path)


def _draw_curve(axes: Any, curve: Curve, number: int) -> None:
    points = [(step, score) for step, score in zip(curve.steps, curve.scores, strict=True) if step > 0]
    axes.plot(
        [step for step, _ in points],
        [score for _, score in points],
        color=COLOURS[number % len(COLOURS)],
        linestyle=DASHES[number // len(COLOURS) % len(DASHES)],
        marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
        markersize=4.5,
        linewidth=1.6,
        label=curve.name,
    )


def _mark(axes: Any, height: float, label: str, *, side: str, below: bool) -> None:
    axes.axhline(height, color="#777777", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        label,
        (float(side == "right"), height),
        xycoords=("axes fraction", "data"),
        xytext=(-4 if side == "right" else 4, -3 if below else 3),
        textcoords="offset points",
        ha=side,
        va="top" if below else "bottom",
        color="#555555",
        fontsize=8,
    )


def _apart(steps: set[int]) -> list[int]:
    """Return the steps whose labels leave each other room on the logarithmic axis, the last one first of all."""
    ordered = sorted(steps, reverse=True)
    kept = ordered[:1]
    for step in ordered[1:]:
        if log(kept[-1] / step) >= 0.11 * log(ordered[0] / ordered[-1]):
            kept.append(step)
    return kept[::-1]
