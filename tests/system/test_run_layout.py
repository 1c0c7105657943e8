"""Where the weights of a run lie, which of them are whole, and where what describes them is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptkit.system.run_layout import defect, described_in, is_undescribed, is_unfinished, newest_weights, record_of
from gptkit.training.checkpoint_files import render_manifest


def save(path: Path, text: str = "weights") -> Path:
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text(text)
    records = [record_of(path / "model.safetensors")]
    (path / "MANIFEST.json").write_text(render_manifest(int(path.name[5:]), records))
    return path


def test_the_newest_whole_weights_count_and_of_one_step_the_snapshot(tmp_path: Path) -> None:
    assert newest_weights(tmp_path) == (None, [])
    older = save(tmp_path / "checkpoints" / "step-000200")
    save(tmp_path / "checkpoints" / "step-000300")
    snapshot = save(tmp_path / "snapshots" / "step-000300")
    (tmp_path / "checkpoints" / "step-000400").mkdir()  # being written
    assert newest_weights(tmp_path) == (snapshot, [])
    for place in ("snapshots", "checkpoints"):
        (tmp_path / place / "step-000300" / "model.safetensors").write_text("WEIGHTS")
    newest, lines = newest_weights(tmp_path)
    assert newest == older
    assert [line.endswith("is not used: model.safetensors differs from its sha256") for line in lines] == [True, True]


def test_only_the_weights_of_a_checkpoint_are_asked_for(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints" / "step-000001")
    (path / "optimizer.safetensors").write_text("moments")
    records = [record_of(path / name) for name in ("model.safetensors", "optimizer.safetensors")]
    (path / "MANIFEST.json").write_text(render_manifest(1, records))
    (path / "optimizer.safetensors").unlink()
    assert newest_weights(tmp_path) == (path, [])


def test_weights_of_a_run_are_described_in_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "run" / "snapshots" / "step-000001")
    assert described_in(path) == path  # an unfinished run of an earlier version
    assert is_undescribed(path)
    (tmp_path / "run" / "model").mkdir()
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    assert described_in(path) == tmp_path / "run" / "model"  # a finished one
    assert not is_undescribed(path)
    (tmp_path / "run" / "start").mkdir()
    assert described_in(path) == tmp_path / "run" / "start"
    assert is_undescribed(save(tmp_path / "elsewhere" / "step-000001"))
    monkeypatch.chdir(path)
    assert described_in(Path()) == tmp_path / "run" / "start"
    assert defect(Path()) is None
    (path / "config.json").write_text("{}")
    assert described_in(path) == path
    assert described_in(tmp_path / "run") == tmp_path / "run"


def test_a_run_is_unfinished_until_its_result_is_there(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "start").mkdir(parents=True)
    (run / "model").mkdir()  # of fewer steps, or half-written
    assert is_unfinished(run)
    (run / "result.json").write_text("{}")
    assert not is_unfinished(run)
    (tmp_path / "earlier" / "checkpoints").mkdir(parents=True)
    assert is_unfinished(tmp_path / "earlier")
    assert not is_unfinished(tmp_path)
