"""The loss curve of a run, drawn from its rows of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptkit.report.pictures import save, set_title

TRAIN, VALIDATION = "#9ab8d6", "#b3261e"
SMOOTHING = 0.6


def draw_loss(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    title: str,
    *,
    ylabel: str = "loss (nats per token)",
    training: str = "training",
    validation: str = "validation",
) -> None:
    """Write loss against tokens as a picture: training loss, its moving average, validation loss; each as named."""
    from matplotlib.figure import Figure  # no pyplot: no display is looked for and no state is kept

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    tokens = [row["tokens"] for row in rows]
    losses = [row["loss"] for row in rows]
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
    """Return the exponential moving average, corrected for its start."""
    average, weight, smoothed = 0.0, 0.0, []
    for value in values:
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        smoothed.append(average / weight)
    return smoothed
