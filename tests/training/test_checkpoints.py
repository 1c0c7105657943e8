from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_toy import bits_equal, everything, toy, toy_train

import gptkit
from gptkit.errors import GptkitError, InputError, OutOfResources, UsageError
from gptkit.system import files
from gptkit.system.run_layout import MANIFEST, all_steps, record_of, with_digest
from gptkit.training import checkpoints
from gptkit.training.checkpoint_files import safetensors_chunks
from gptkit.training.checkpoints import RunState, TrainState, newest_committed, quarantine
from gptkit.training.job import Plan
from gptkit.training.processes import make_accelerator

ALONE = make_accelerator("cpu")
FILES = ["model.safetensors", "optimizer.safetensors", "state.json", MANIFEST]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of steps 2 and 4."""
    directory = tmp_path_factory.mktemp("saved")
    toy_train(Plan(steps=4, save_every=2), checkpoint_directory=directory)
    return directory


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def test_a_checkpoint_holds_safetensors_and_json_that_the_manifest_describes(saved: Path) -> None:
    newest = saved / "step-000004"
    assert sorted(one.name for one in newest.iterdir()) == sorted(FILES)
    manifest = json.loads((newest / MANIFEST).read_text())
    assert (manifest["schema"], manifest["step"]) == ("gptkit.checkpoint/1", 4)
    assert {record["name"]: record["size"] for record in manifest["files"]} == {
        name: (newest / name).stat().st_size for name in FILES[:3]
    }
    assert "lm_head.weight" not in load_file(newest / "model.safetensors")  # tied: once
    assert newest_committed(saved) == checkpoints.Found(newest)


def rewrite(path: Path, name: str, change: Callable[[dict[str, Any]], object], version: str = "9.9") -> None:
    """Change a JSON file of a checkpoint as another version might have written it, and vouch for it again."""
    body = json.loads((path / MANIFEST).read_text())
    body.pop("sha256")
    body["versions"]["gptkit"] = version
    content = body if name == MANIFEST else json.loads((path / name).read_text())
    change(content)
    if name != MANIFEST:
        (path / name).write_text(json.dumps(content))
        records = [record_of(path / one["name"]) for one in body["files"]]
        body["files"] = [dataclasses.asdict(record) for record in records]
    (path / MANIFEST).write_text(with_digest(body))


def test_state_has_a_schema_and_one_without_is_read_as_the_first(saved: Path, copy: Path) -> None:
    newest = copy / "step-000004"
    assert json.loads((newest / "state.json").read_text())["schema"] == checkpoints.STATE_SCHEMA
    rewrite(newest, "state.json", lambda state: state.pop("schema"))
    assert newest_committed(copy) == checkpoints.Found(newest)
    assert checkpoints.read_state(newest) == checkpoints.read_state(saved / "step-000004")


def test_a_checkpoint_from_before_any_field_of_the_state_was_added_is_read(copy: Path) -> None:
    newest = copy / "step-000004"
    rewrite(newest, "state.json", lambda state: [state.pop(name) for name in [*state] if name != "step"])
    assert checkpoints.read_state(newest) == RunState(step=4)


@pytest.mark.parametrize(("name", "schema"), [("state.json", "gptkit.state/2"), (MANIFEST, "gptkit.checkpoint/2")])
def test_a_checkpoint_of_another_version_is_refused_on_one_line_and_never_quarantine(
    name: str, schema: str, copy: Path
) -> None:
    rewrite(copy / "step-000004", name, lambda content: content.update(schema=schema))
    with pytest.raises(InputError) as refusal:
        newest_committed(copy)
    assert f"written by gptkit 9.9; gptkit {gptkit.__version__} cannot read {schema}" in str(refusal.value)
    assert "resume with gptkit 9.9, or start a new run" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_checkpoint_that_lacks_a_hash_is_of_an_earlier_version(copy: Path) -> None:
    newest = copy / "step-000004"
    saved = checkpoints.read_state(newest).identity
    identity = saved | {"split_sha256": "0c2b"}
    with pytest.raises(UsageError, match="from an earlier version, which did not record split_sha256 "):
        checkpoints.refuse_other_identity(newest, saved, identity)


def test_tensors_of_every_kind_survive(tmp_path: Path) -> None:
    tensors = {
        "bf16": torch.randn(3, 5).bfloat16(),
        "half": torch.randn(2).half(),
        "scalar": torch.tensor(3.5),
        "double": torch.randn(2, 2, dtype=torch.float64),
        "turned": torch.randn(4, 3).T,
        "bytes": torch.arange(5, dtype=torch.uint8),
        "flags": torch.tensor([True, False, True]),
        "long": torch.tensor([[2**40]]),
        "empty": torch.zeros(0, 3),
    }
    files.write_durably(tmp_path / "x.safetensors", safetensors_chunks(tensors))
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_going_on_from_an_older_checkpoint_sets_damage_aside_and_ends_in_the_same_bits(saved: Path, copy: Path) -> None:
    plan = Plan(steps=6, save_every=2)
    expected = everything(*toy_train(plan)[:2])
    (copy / "step-000004" / "model.safetensors").write_bytes(b"")
    found = newest_committed(copy)
    quarantine(found)
    assert (copy / "damaged" / "step-000004").is_dir()
    model, optimizer, _ = toy_train(plan, model=toy(seed=1), checkpoint_directory=copy, resume_from=found.path)
    assert bits_equal(everything(model, optimizer), expected)
    assert [path.name for path in all_steps(copy)] == ["step-000006", "step-000004"]


def test_only_the_newest_may_lack_its_manifest(copy: Path) -> None:
    (copy / "step-000004" / MANIFEST).unlink()
    found = newest_committed(copy)
    assert found.path == copy / "step-000002"
    assert "interrupted" in found.lines()[0]
    (copy / "step-000002" / MANIFEST).unlink()
    with pytest.raises(InputError, match=r"step-000002: MANIFEST.json is missing"):
        newest_committed(copy)
    shutil.rmtree(copy / "step-000002")
    found = newest_committed(copy)  # the first save of all was cut off: start over, and say so
    assert found.path is None
    assert "starting from step 0" in found.lines()[0]
    quarantine(found)
    assert newest_committed(copy) == checkpoints.Found(None)
    assert newest_committed(copy / "nowhere") == checkpoints.Found(None)


def test_an_older_one_without_a_manifest_is_damage_even_where_it_is_not_needed(copy: Path) -> None:
    (copy / "step-000002" / MANIFEST).unlink()
    found = newest_committed(copy)
    assert found.path == copy / "step-000004"
    [line] = found.lines()
    assert line.startswith(f"{copy / 'step-000002'} is not used: {MANIFEST} is missing")
    quarantine(found)
    assert (copy / "damaged" / "step-000002").is_dir()


def test_a_step_of_seven_digits_is_no_older_than_one_of_six(tmp_path: Path) -> None:
    model, optimizer, _ = small_state(0)
    (tmp_path / "step-999999").mkdir()
    path = checkpoints.write(tmp_path, TrainState(model, optimizer), RunState(step=1_000_000), accelerator=ALONE)
    found = newest_committed(tmp_path)
    assert (found.path, [one.name for one, _ in found.rejected]) == (path, ["step-999999"])


def test_a_link_to_a_checkpoint_is_removed_and_not_what_it_leads_to(copy: Path, tmp_path: Path) -> None:
    kept = (copy / "step-000002").rename(tmp_path / "kept")
    (copy / "step-000002").symlink_to(kept)
    checkpoints.prune(copy, 1)
    assert not (copy / "step-000002").exists()
    assert (kept / MANIFEST).is_file()


def small_state(step: int) -> tuple[nn.Module, Any, RunState]:
    model, optimizer, _ = toy_train(Plan(steps=1))
    return model, optimizer, RunState(step=step)


def test_a_committed_checkpoint_is_never_written_again_and_the_newest_are_kept(tmp_path: Path) -> None:
    model, optimizer, _ = small_state(0)
    for step in (1, 2, 3, 4):
        checkpoints.write(tmp_path, TrainState(model, optimizer), RunState(step=step), accelerator=ALONE, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003", "step-000004"]
    before = (tmp_path / "step-000004" / MANIFEST).read_bytes()
    with pytest.raises(GptkitError, match="refusing to overwrite a committed checkpoint"):
        checkpoints.write(tmp_path, TrainState(model, optimizer), RunState(step=4), accelerator=ALONE)
    assert (tmp_path / "step-000004" / MANIFEST).read_bytes() == before


class Crash(BaseException):
    """The process is gone: nothing after this runs."""


EFFECTS = ["write", "sync", "rename", "make_directory", "remove_directory", "remove_file"]


def failing_at(monkeypatch: pytest.MonkeyPatch, turn: int, error: BaseException) -> list[str]:
    """Make the turn-th effect on files fail; return the list of those that were called."""
    called: list[str] = []

    def wrapped(name: str, effect: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            called.append(name)
            if len(called) == turn:
                raise error
            return effect(*arguments)

        return call

    for name in EFFECTS:
        monkeypatch.setattr(files, name, wrapped(name, getattr(files, name)))
    return called


@pytest.mark.parametrize("kind", ["crash", "no space"])
def test_a_failure_at_any_effect_of_a_save_leaves_a_whole_checkpoint(
    kind: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer, state = small_state(6)
    turn, outcomes = 0, set()
    while True:
        turn += 1
        trial = Path(shutil.copytree(copy, tmp_path / f"{turn}"))
        error = Crash() if kind == "crash" else OSError(errno.ENOSPC, "No space left on device", "x")
        with monkeypatch.context() as patch:
            called = failing_at(patch, turn, error)
            try:
                checkpoints.write(trial, TrainState(model, optimizer), state, accelerator=ALONE, keep=2)
            except (Crash, OutOfResources) as failure:
                raised = type(failure)
            else:
                break
        assert raised is (Crash if kind == "crash" else OutOfResources)
        found = newest_committed(trial)
        assert found.path is not None
        assert all(reason == checkpoints.CUT_OFF for _, reason in found.rejected)
        outcomes.add(found.path.name)
        quarantine(found)
        if found.path.name != "step-000006":
            checkpoints.write(trial, TrainState(model, optimizer), state, accelerator=ALONE, keep=2)
        else:
            checkpoints.prune(trial, 2)
        assert [path.name for path in all_steps(trial)] == ["step-000006", "step-000004"]
    assert outcomes == {"step-000004", "step-000006"}
    assert {"write", "sync", "rename", "make_directory", "remove_directory"} <= set(called)
    manifest = max(i for i, name in enumerate(called) if name == "rename" and i < len(called) - 3)
    assert "write" not in called[manifest:]


def test_another_models_tensors_are_refused(saved: Path) -> None:
    _, optimizer, _ = small_state(1)
    with pytest.raises(InputError, match="not match this model"):
        checkpoints.load(saved / "step-000004", TrainState(nn.Linear(2, 2), optimizer))
