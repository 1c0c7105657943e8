"""The summary of a probe on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.console import Console
from gptkit.scoring.measures import MEASURES

percent = MEASURES["accuracy"].shown


def print_summary(result: Mapping[str, Any], console: Console) -> None:
    """Print a row for each site, every accuracy with its 95% interval, and the best fit and unit."""
    rows = [
        (
            row["layer"],
            row["site"],
            _shown(row["accuracy"], row["interval"]),
            row["units"],
            row["best_unit"],
            _shown(row["best_unit_accuracy"], row["best_unit_interval"]),
            _shown(row["control_accuracy"], row["control_interval"]),
        )
        for row in result["layers"]
    ]
    title = f"{result['task']}: accuracy on {result['n_reported']:,} examples of {result['split']}, with 95% intervals"
    columns = ("layer", "site", "accuracy", "units", "best unit", "that unit alone", "control")
    console.table(title, columns, rows)
    best = result["best"]
    console.result(
        f"best on {result['chosen_on']}: layer {best['layer']}, {best['site']}, {best['units']} units: "
        f"{percent(best['accuracy'])}; chance {percent(result['chance'])}: always the most frequent class"
    )
    console.result(f"best unit of an MLP: {result['unit']}, alone {percent(result['unit_accuracy'])}")
    console.result(f"control: the same fits on shuffled labels; page {result['page']}")


def _shown(accuracy: float, interval: Sequence[float] | None) -> str:
    ends = "n/a" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
    return f"{percent(accuracy)} ({ends})"
