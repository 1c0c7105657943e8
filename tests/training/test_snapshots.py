"""Snapshots: evenly spaced, whole, never pruned, and the same bytes whatever interrupts the run."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor, nn
from training_toy import bits_equal, toy, toy_loss, toy_train

from gptkit.errors import Interrupted, OutOfResources
from gptkit.system import files
from gptkit.system.run_layout import defect
from gptkit.system.signals import StopRequest
from gptkit.training.batches import Batch
from gptkit.training.checkpoints import drop_snapshots_after, newest_committed
from gptkit.training.job import Plan, snapshots_of
from gptkit.training.options import TrainingOptions


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("steps", "snapshots", "expected"),
    [
        (400, 8, [50, 100, 150, 200, 250, 300, 350, 400]),
        (10, 3, [4, 7, 10]),
        (3, 8, [1, 2, 3]),
        (7, 1, [7]),
        (7, 0, []),
    ],
)
def test_they_are_evenly_spaced_and_the_last_is_of_the_last_step(
    steps: int, snapshots: int, expected: list[int]
) -> None:
    plan = Plan(steps=steps, snapshots=snapshots)
    assert [step for step in range(1, steps + 1) if plan.is_snapshot_due(step)] == expected


def test_small_models_have_eight_unless_told_otherwise() -> None:
    assert (snapshots_of(TrainingOptions(), 49_999_999), snapshots_of(TrainingOptions(), 50_000_000)) == (8, 0)
    assert snapshots_of(TrainingOptions(snapshots=0), 1000) == 0
    assert snapshots_of(TrainingOptions(snapshots=3), 10**9) == 3


def test_each_holds_the_weights_of_its_step_and_none_is_pruned(tmp_path: Path) -> None:
    plan = Plan(steps=6, save_every=1, keep_checkpoints=9, snapshots=3)
    toy_train(plan, checkpoint_directory=tmp_path / "checkpoints", snapshot_directory=tmp_path / "snapshots")
    names = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
    assert names == ["step-000002", "step-000004", "step-000006"]
    for name in names:
        path = tmp_path / "snapshots" / name
        assert sorted(file.name for file in path.iterdir()) == ["MANIFEST.json", "model.safetensors"]
        assert defect(path) is None
        theirs = load_file(tmp_path / "checkpoints" / name / "model.safetensors")
        assert bits_equal(load_file(path / "model.safetensors"), theirs)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_an_interrupted_run_leaves_the_same_bytes(cut: int, tmp_path: Path) -> None:
    plan, stop, passes = Plan(steps=6, snapshots=3), StopRequest(), 0
    toy_train(plan, snapshot_directory=tmp_path / "whole", checkpoint_directory=tmp_path / "one")

    def stopping(model: nn.Module, batch: Batch, count: Tensor | int) -> Tensor:
        nonlocal passes
        passes += 1
        if passes == 3 * cut:  # three micro-batches a step
            stop.ask(signal.SIGTERM)
        return toy_loss(model, batch, count)

    folders = {"snapshot_directory": tmp_path / "cut", "checkpoint_directory": tmp_path / "two"}
    with pytest.raises(Interrupted):
        toy_train(plan, loss=stopping, stop=stop, **folders)
    found = newest_committed(tmp_path / "two").path
    (tmp_path / "cut" / "step-000004").mkdir(parents=True)  # a save that was cut off
    (tmp_path / "cut" / "step-000004" / "model.safetensors").write_bytes(b"half")
    toy_train(plan, model=toy(seed=1), resume_from=found, **folders)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_going_back_drops_later_ones_and_what_a_cut_off_removal_left(tmp_path: Path) -> None:
    toy_train(Plan(steps=4, snapshots=4), snapshot_directory=tmp_path)
    shutil.copytree(tmp_path / "step-000004", tmp_path / "removed-step-000005")
    drop_snapshots_after(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000002"]
    drop_snapshots_after(tmp_path / "nowhere", 2)


def test_a_full_disk_ends_the_run_and_leaves_no_half_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "x")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", full)
        with pytest.raises(OutOfResources, match="saving snapshots/step-000002"):
            toy_train(Plan(steps=2, snapshots=1), snapshot_directory=tmp_path / "snapshots")
    assert list((tmp_path / "snapshots").iterdir()) == []
