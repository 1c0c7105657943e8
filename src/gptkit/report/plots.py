"""Plots: the loss curve of a run, and what all plots need: titles as plain text, and reproducible files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptkit.report.text import one_line

TRAIN, VALIDATION = "#9ab8d6", "#b3261e"
SMOOTHING = 0.6
LONGEST_TITLE = 100
LONGEST_NAME = 44
# Okabe and Ito's palette for colour-blind readers; further curves differ by dashes and markers.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", "--", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

Curves = dict[str, list[dict[str, list[tuple[float, float]]]]]  # run -> seed -> figure -> points


def draw_loss(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    title: str,
    *,
    ylabel: str = "loss (nats per token)",
    training: str = "training",
    validation: str = "validation",
) -> None:
    """Plot loss against tokens: training loss, its moving average and validation loss, labelled as given."""
    from matplotlib.figure import Figure  # not pyplot, which looks for a display and keeps state

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    tokens, losses = [row["tokens"] for row in rows], [row["loss"] for row in rows]
    axes.plot(tokens, losses, color=TRAIN, linewidth=1, label=f"{training}, each logged step")
    axes.plot(tokens, _smoothed(losses), color="#1f5a94", linewidth=1.6, label=f"{training}, moving average")
    validated = [row for row in rows if row.get("val_loss") is not None]
    axes.plot(
        [row["tokens"] for row in validated],
        [row["val_loss"] for row in validated],
        color=VALIDATION,
        marker="o",
        markersize=3.5,
        label=validation,
    )
    if validated:
        last = validated[-1]
        axes.annotate(
            f"{last['val_loss']:.3f}",
            (last["tokens"], last["val_loss"]),
            xytext=(-4, 8),
            textcoords="offset points",
            ha="right",
            color=VALIDATION,
        )
    axes.set(xlabel="tokens", ylabel=ylabel)
    set_title(axes, title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save(figure, path)


def draw_runs(
    curves: Curves, path: Path, *, lines: Mapping[str, str], validation: str, xlabel: str, ylabel: str
) -> None:
    """Plot the figures in `lines`, which has the legend's word for each: `validation` with markers, others dotted."""
    from matplotlib.figure import Figure  # not pyplot, which looks for a display and keeps state
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(7.2, 4.2 + 0.105 * (len(curves) + 4)), layout="constrained")
    axes = figure.subplots()
    styles: list[dict[str, Any]] = []
    for number, seeds in enumerate(curves.values()):
        marker = MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
        colour = COLOURS[number % len(COLOURS)]
        styles.append({"color": colour, "marker": marker, "markersize": 4.5, "linewidth": 1.6})
        for name, points in [item for seed in seeds for item in seed.items() if item[1]]:
            x, y = zip(*points, strict=True)
            if name == validation:
                axes.plot(x, y, markevery=max(1, len(x) // 12), **styles[-1])
            else:
                axes.plot(x, _smoothed(y), color=colour, linewidth=1, linestyle=":")
    grey = {"color": "#555555"}
    for name in lines:
        solid = {"marker": "o", "markersize": 4.5, "linewidth": 1.6}
        styles.append(grey | (solid if name == validation else {"linestyle": ":", "linewidth": 1}))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(
        [Line2D([], [], **style) for style in styles],
        [*map(_shortened, curves), *lines.values()],
        loc="outside lower left",
        ncols=2,
        frameon=False,
        fontsize=8,
        handlelength=3,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    save(figure, path)


def _shortened(name: str) -> str:
    """Return a name on one line, without its middle if it is long."""
    line = one_line(name)
    half = (LONGEST_NAME - 3) // 2
    return line if len(line) <= LONGEST_NAME else f"{line[:half]}...{line[-half:]}"


def _smoothed(values: Sequence[float]) -> list[float]:
    """Return the exponential moving average, with bias correction."""
    average, weight, smoothed = 0.0, 0.0, []
    for value in values:
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        smoothed.append(average / weight)
    return smoothed


def set_title(axes: Any, text: str, **settings: Any) -> None:
    """Set a title of at most 100 characters, in which a dollar sign does not start math."""
    title = one_line(text)
    title = title if len(title) <= LONGEST_TITLE else title[: LONGEST_TITLE - 3] + "..."
    axes.set_title(title, parse_math=False, **settings)


def save(figure: Any, path: Path) -> None:
    """Write a figure to a file without matplotlib's version: the same figure gives the same bytes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # drawn as a box
        figure.savefig(path, dpi=150, metadata={"Software": None})
