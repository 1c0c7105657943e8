"""The picture of zero-shot scores along a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptkit.evaluate.all_checkpoints import draw_zero_shot


def test_the_same_scores_give_the_same_picture(tmp_path: Path) -> None:
    steps = [0, 10, 100, 1000]
    curves: dict[str, list[float | None]] = {"gap": [0.0, None, 0.2, 0.3], "no end": [0.0, 0.1, 0.2, None]}
    curves |= {f"task-{number}/protocol": [0.0, -0.1, 0.1 * number, 0.3] for number in range(8)}
    for name in ("a.png", "b.png"):
        draw_zero_shot(steps, curves, tmp_path / name, "run")
    first = (tmp_path / "a.png").read_bytes()
    assert first == (tmp_path / "b.png").read_bytes()
    curves.pop("task-0/protocol")
    draw_zero_shot(steps, curves, tmp_path / "c.png", "run")
    assert first != (tmp_path / "c.png").read_bytes()


def test_one_step_or_none_is_a_picture_too(tmp_path: Path) -> None:
    for name, steps in (("one.png", [200]), ("none.png", [0])):
        draw_zero_shot(steps, {"task": [0.5]}, tmp_path / name, "run")
        assert (tmp_path / name).stat().st_size > 5_000


def test_measures_without_a_chance_level_have_axes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr("gptkit.evaluate.all_checkpoints.save", lambda figure, path: figures.append(figure))
    others: dict[str, dict[str, list[float | None]]] = {
        "bits per byte": {"text": [2.0, None]},
        "BLEU": {"x": [1.0, 2.0]},
    }
    for curves in ({"task": [0.5, 0.6]}, {}):
        draw_zero_shot([1, 10], curves, tmp_path / "it.png", "run", others)
    labels = [[axes.get_ylabel() for axes in figure.axes] for figure in figures]
    assert labels == [["score, from chance to the best", *others], [*others]]
