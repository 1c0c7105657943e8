"""Plots: the loss curve of a run, and what all plots need: plain text in any script, and reproducible files."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptkit.report.text import one_line

TRAIN, SMOOTHED, VALIDATION, METRIC = "#9ab8d6", "#1f5a94", "#b3261e", "#2e7d32"
SMOOTHING = 0.6
FEW = 30  # rows that are drawn as points, too
TITLE, LONGEST_TITLE, TITLE_LETTERS = "title", 100, 72
FONT = "DejaVu Sans"  # which matplotlib brings along
NO_REAL_GLYPHS = ("last resort", "lastresort", "blank", "color")  # in the names of fonts
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
    training: str = "training loss",
    validation: str = "validation loss",
    evaluated: str = "val_loss",
    metric: str | None = None,
) -> None:
    """Plot training and validation loss, labelled as given, against steps, and a metric of dev on its own axis.

    `evaluated` names the validation loss in the rows.
    """
    from matplotlib.figure import Figure  # not pyplot, which looks for a display and keeps state

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    merged: dict[float, Mapping[str, Any]] = {}  # a step that was logged twice is drawn once
    for row in rows:
        merged[row["step"]] = {**merged.get(row["step"], {}), **row}
    steps, losses = [*merged], [row["loss"] for row in merged.values()]
    marker = "." if len(merged) < FEW else ""
    axes.plot(steps, losses, color=TRAIN, linewidth=1, marker=marker, label=f"{training}, each logged step")
    axes.plot(steps, _smoothed(losses), color=SMOOTHED, linewidth=1.6, label="its moving average")
    _draw_points(axes, merged, evaluated, VALIDATION, "o", validation, beside=8)
    axes.set(xlabel="step", ylabel=ylabel)
    if metric is not None and any(row.get(metric) is not None for row in merged.values()):
        right = axes.twinx()
        _draw_points(right, merged, metric, METRIC, "s", f"dev {metric} (right axis)", beside=-14)
        right.set_ylabel(f"dev {metric}", color=METRIC)
        right.set_ylim(top=min(1.0, right.get_ylim()[1]))  # no metric is higher
        right.tick_params(axis="y", colors=METRIC)
        right.spines["top"].set_visible(False)
        right.spines["right"].set_color(METRIC)
    set_title(axes, title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    save(figure, path)


def _draw_points(
    axes: Any, rows: Mapping[float, Mapping[str, Any]], name: str, colour: str, marker: str, label: str, *, beside: int
) -> None:
    """Plot a figure of the rows that have it, with the last value `beside` points above it."""
    points = [(step, row[name]) for step, row in rows.items() if row.get(name) is not None]
    if not points:
        return
    axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=5, zorder=3, label=label)
    place: dict[str, Any] = {"xytext": (-4, beside), "textcoords": "offset points", "ha": "right", "color": colour}
    axes.annotate(f"{points[-1][1]:.3f}", points[-1], **place)


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
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        [Line2D([], [], **style) for style in styles],
        [*map(_shortened, curves)],
        title="; ".join(f"{'markers' if name == validation else 'dotted'}: {word}" for name, word in lines.items()),
        title_fontsize=8,
        loc="outside lower left",
        ncols=2,
        frameon=False,
        fontsize=8,
        handlelength=3,
    )
    save(figure, path)


def draw_intervals(
    rows: Sequence[tuple[str, Any, Any, Any]], path: Path, title: str, *, xlabel: str, reference: float | None
) -> None:
    """Plot a line for each row (name, value, interval, single values), the first on top; `reference` is chance.

    Values and intervals may be None, and are then left out.
    """
    from matplotlib.figure import Figure  # not pyplot, which looks for a display and keeps state

    figure = Figure(figsize=(7.2, 1.2 + 0.45 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, value, interval, each) in enumerate(rows):
        axes.plot(each, [place] * len(each), "|", color=SMOOTHED)  # None becomes nan, not drawn
        axes.plot([value], [place], "o", color=SMOOTHED)
        if value is None:
            axes.annotate(
                "mean n/a", (0.98, place), xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=9
            )
        if interval is not None:
            axes.plot(interval, [place, place], color=TRAIN, linewidth=4, solid_capstyle="butt", zorder=0)
    if reference is not None:
        axes.axvline(reference, color=VALIDATION, linewidth=1, linestyle=":", label="chance")
        axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1))
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
    set_title(axes, title)
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _shortened(name: str) -> str:
    """Return a name on one line, without its middle if it is long; Chinese letters are twice as wide."""
    line = one_line(name)
    most = LONGEST_NAME // 2 if any(unicodedata.east_asian_width(char) in "WF" for char in line) else LONGEST_NAME
    half = (most - 3) // 2
    return line if len(line) <= most else f"{line[:half]}...{line[-half:]}"


def _smoothed(values: Sequence[float]) -> list[float]:
    """Return the exponential moving average, with bias correction."""
    average, weight, smoothed = 0.0, 0.0, []
    for value in values:
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        smoothed.append(average / weight)
    return smoothed


def set_title(axes: Any, text: str, *, loc: str = "center", fontsize: float = 12) -> None:
    """Set a title over all of the figure: at most 100 characters, the last of a longer text."""
    title = one_line(text)
    title = title if len(title) <= LONGEST_TITLE else f"...{title[3 - LONGEST_TITLE :]}"
    place = {"x": 0.01, "ha": "left"} if loc == "left" else {}
    axes.figure.suptitle(title, fontsize=fontsize, gid=TITLE, **place)


def save(figure: Any, path: Path) -> None:
    """Write a figure to a file without matplotlib's version: the same figure gives the same bytes.

    Its texts are no math, and each letter is drawn in a font that has it, or else as its escape.
    """
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if text.get_text()]  # those of ticks are set when they are drawn
    families, missing = _fonts_for("".join(text.get_text() for text in texts))
    for text in texts:
        shown = text.get_text().translate({ord(char): char.encode("unicode_escape").decode() for char in missing})
        text.set_text(_lines(shown) if text.get_gid() == TITLE else shown)
        text.set(parse_math=False, fontfamily=families)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _lines(title: str) -> str:
    """Return a title on lines that fit a figure; Chinese letters are twice as wide."""
    most = TITLE_LETTERS // 2 if any(unicodedata.east_asian_width(char) in "WF" for char in title) else TITLE_LETTERS
    return "\n".join(title[start : start + most] for start in range(0, len(title), most))


def _fonts_for(text: str) -> tuple[list[str], set[str]]:
    """Return the families of installed fonts that hold the letters of a text, and the letters that none holds."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it reports weights that a family lacks
    families, missing = [FONT], set(text) - _held(get_font(findfont(FontProperties(family=FONT))), text)
    for entry in sorted(fontManager.ttflist, key=lambda entry: entry.name):
        if not missing:
            break
        if entry.name in families or any(word in entry.name.lower() for word in NO_REAL_GLYPHS):
            continue
        try:
            font = get_font(findfont(FontProperties(family=entry.name), fallback_to_default=False))
        except (OSError, RuntimeError, ValueError):  # removed, or of a kind that matplotlib cannot read
            continue
        if held := _held(font, missing) if font.scalable else set():
            families.append(entry.name)
            missing -= held
    return families, missing


def _held(font: Any, letters: Iterable[str]) -> set[str]:
    return {char for char in letters if char.isspace() or font.get_char_index(ord(char))}
