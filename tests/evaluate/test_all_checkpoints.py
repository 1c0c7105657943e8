"""The weights that a run saved, and scores between chance and the best published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gptkit.errors import InputError
from gptkit.evaluate.all_checkpoints import Yardstick, yardstick
from gptkit.scoring.protocols import Protocol, Published
from gptkit.system.run_layout import directory_name, record_of
from gptkit.training.checkpoint_files import render_manifest
from gptkit.training.saved_weights import saved_weights


def save(folder: Path, step: int) -> None:
    path = folder / directory_name(step)
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text(f"weights of step {step}")
    (path / "MANIFEST.json").write_text(render_manifest(step, [record_of(path / "model.safetensors")]))


def make_run(folder: Path, *, steps: tuple[int, ...], finished: int | None) -> Path:
    for step in steps:
        save(folder / "checkpoints", step)
    if finished is not None:
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "config.json").write_text("{}")
        (folder / "result.json").write_text(json.dumps({"steps": finished}))
    return folder


def test_committed_checkpoints_and_the_model_come_by_step(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=(1000, 200, 1_000_000, 1200), finished=1_000_000)
    (run / "checkpoints" / "step-000300").mkdir()  # a save that was cut off
    (run / "checkpoints" / "damaged").mkdir()
    saved, notes = saved_weights(run)
    names = [(step, run / "checkpoints" / directory_name(step)) for step in (200, 1000, 1200)]
    assert [*saved.items()] == [*names, (1_000_000, run / "model")]
    assert notes == []


def test_snapshots_make_a_curve_and_damaged_weights_are_left_out_with_a_line(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=(300, 400), finished=None)
    for step in (100, 200, 300):
        save(run / "snapshots", step)
    (run / "snapshots" / "step-000200" / "model.safetensors").write_text("other weights ")
    saved, [note, _] = saved_weights(run)
    places = [(100, "snapshots"), (300, "snapshots"), (400, "checkpoints")]
    assert [*saved.items()] == [(step, run / place / directory_name(step)) for step, place in places]
    assert note.startswith(f"{run / 'snapshots' / 'step-000200'} is skipped: model.safetensors ")
    shutil.rmtree(run / "checkpoints")
    make_run(run, steps=(), finished=400)
    (run / "result.json").write_text(json.dumps({"steps": 400, "best_step": 250}))  # a fine-tuned model is its best
    assert [*saved_weights(run)[0].items()][1] == (250, run / "model")


def test_a_run_that_kept_few_is_told(tmp_path: Path) -> None:
    saved, [note] = saved_weights(make_run(tmp_path / "a", steps=(90,), finished=100))
    assert [*saved] == [90, 100]
    assert "only the weights of steps 90 and 100" in note
    assert "snapshots" in note
    unfinished, _ = saved_weights(make_run(tmp_path / "b", steps=(90,), finished=None))
    assert [*unfinished] == [90]
    with pytest.raises(InputError, match="no intact checkpoint, no snapshot and no finished model"):
        saved_weights(tmp_path)


def test_damage_to_all_weights_is_named_and_seeds_are_evaluated_one_by_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", steps=(90,), finished=None)
    (run / "checkpoints" / "step-000090" / "model.safetensors").write_text("damaged")
    with pytest.raises(InputError, match=r"saved are damaged: .*step-000090 is skipped: model\.safetensors"):
        saved_weights(run)
    run = make_run(tmp_path / "b", steps=(), finished=112)
    (run / "result.json").write_text(json.dumps({"steps": 112, "per_seed": [{}, {}]}))
    (run / "seed-0").mkdir()
    with pytest.raises(InputError, match="each seed") as caught:
        saved_weights(run)
    assert caught.value.fix == f"choose one: {run / 'seed-0'}"


def test_a_score_lies_between_chance_and_the_best() -> None:
    scale = Yardstick(0.25, 0.75)
    assert [scale.normalized(score) for score in (0.25, 0.5, 0.75, 1.0, 0.0)] == [0, 0.5, 1, 1.5, -0.5]


def test_the_best_is_that_of_the_whole_evaluation() -> None:
    def protocol(name: str, chance: float | None, *values: float, measure: str = "accuracy") -> Protocol:
        published = tuple(Published("x", measure, value, "y") for value in values)
        return Protocol(name, "", ("accuracy",), published=published, chance=chance)

    every = [protocol("a", 0.5, 0.6), protocol("b", 0.5, 0.7, 0.65), protocol("c", None), protocol("d", 0.5)]
    every.append(protocol("e", None, 9.0, measure="perplexity"))
    assert yardstick(every[0], every) == yardstick(every[3], every) == Yardstick(0.5, 0.7)
    assert yardstick(every[2], every) is None
    assert yardstick(every[3], every[2:]) is None  # nothing published
    assert yardstick(protocol("f", 0.7), every) is None  # nothing better than chance
