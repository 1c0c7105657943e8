"""The summary of a probe on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.console import Console
from gptkit.scoring.measures import MEASURES

percent = MEASURES["accuracy"].shown


def print_summary(result: Mapping[str, Any], console: Console) -> None:
    columns = ("layer", "site", "accuracy", "95% interval", "units", "best unit", "alone", "control")
    rows = [
        (
            row["layer"],
            row["site"],
            percent(row["accuracy"]),
            interval(row["interval"]),
            row["units"],
            row["best_unit"],
            percent(row["best_unit_accuracy"]),
            f"{percent(row['control_accuracy'])} ({interval(row['control_interval'])})",
        )
        for row in result["layers"]
    ]
    title = f"accuracy on {result['n_reported']:,} examples of {result['split']}, {result['task']}"
    console.table(title, columns, rows)
    best = result["best"]
    console.result(
        f"best on {result['chosen_on']}: layer {best['layer']}, {best['site']}, {best['units']} units: "
        f"{percent(best['accuracy'])}; chance {percent(result['chance'])}"
    )
    console.result(f"best unit of an MLP: {result['unit']}, alone {percent(result['unit_accuracy'])}")
    console.result(f"control: the same fits on shuffled labels; page {result['page']}")


def interval(ends: Sequence[float] | None) -> str:
    return "n/a" if ends is None else f"{percent(ends[0])} to {percent(ends[1])}"
