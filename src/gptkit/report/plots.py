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
