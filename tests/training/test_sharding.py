"""FSDP2 on two gloo processes: the run that one process makes, with checkpoints that any number of them reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_processes import run_pair
from training_toy import VOCABULARY, everything, step_rows, toy, toy_train

from gptkit.errors import UsageError
from gptkit.model.loading import read_safetensors
from gptkit.system.run_layout import directory_name
from gptkit.training.checkpoints import newest_committed
from gptkit.training.job import Plan
from gptkit.training.sharding import is_asked, rows_of


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes: `sharded/` throughout; `from-one/`, which one process began."""
    directory = tmp_path_factory.mktemp("sharded")
    (directory / "from-one").mkdir()
    saved = directory / "from-one" / "checkpoints"
    toy_train(Plan(steps=6, save_every=3), micro_batch=3, checkpoint_directory=saved)
    shutil.rmtree(saved / "step-000006")
    whole = [str(directory / "sharded"), "shards=true", "save_every=3", "keep_checkpoints=9", "snapshots=2"]
    run_pair(*whole, "+", str(directory / "from-one"), "shards=true")
    return directory


def test_two_sharded_processes_are_one_whole_run(pair: Path) -> None:
    """Rows of 11, 24 and 8 over two processes; four micro-batches, of unequal counts, with dropout."""
    model, optimizer, events = toy_train(Plan(steps=6, log_every=1), micro_batch=3)
    expected = everything(model, optimizer)
    for rank in (0, 1):
        end = torch.load(pair / "sharded" / f"end-{rank}.pt", weights_only=True)
        for name, tensor in model.state_dict().items():  # the caller's model is whole again
            torch.testing.assert_close(end[name], tensor, atol=1e-6, rtol=1e-5, msg=name)
        rows = rows_of(VOCABULARY, rank, 2)
        moments = expected["wte.weight/exp_avg"][rows.start : rows.stop]
        torch.testing.assert_close(end["wte.weight/exp_avg"], moments, atol=1e-6, rtol=1e-5)
        seen = [json.loads(line) for line in (pair / "sharded" / f"rows-{rank}.jsonl").read_text().splitlines()]
        for ours, theirs in zip(step_rows(events), seen, strict=True):
            assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-6)
            assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-5)


def test_each_process_saves_its_own_rows(pair: Path) -> None:
    newest = newest_committed(pair / "sharded" / "checkpoints").path
    assert newest is not None
    parts = [load_file(newest / f"model-0000{number}-of-00002.safetensors") for number in (1, 2)]
    assert [part["wte.weight"].shape[0] for part in parts] == [6, 5]
    whole = torch.load(pair / "sharded" / "end-0.pt", weights_only=True)
    for name in parts[0]:
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])


def test_snapshots_and_what_a_model_is_loaded_from_are_whole(pair: Path) -> None:
    whole = torch.load(pair / "sharded" / "end-0.pt", weights_only=True)
    for step in (3, 6):
        snapshot = load_file(pair / "sharded" / "snapshots" / directory_name(step) / "model.safetensors")
        read = read_safetensors(pair / "sharded" / "checkpoints" / directory_name(step))
        assert snapshot.keys() == read.keys() == dict(toy().named_parameters()).keys()
        for name, tensor in snapshot.items():
            assert torch.equal(tensor, read[name])
            assert torch.equal(tensor, whole[name]) == (step == 6)


def test_a_sharded_run_goes_on_in_one_process(pair: Path, tmp_path: Path) -> None:
    shutil.copytree(pair / "sharded" / "checkpoints" / "step-000003", tmp_path / "step-000003")
    found = newest_committed(tmp_path).path
    model, optimizer, _ = toy_train(Plan(steps=6), model=toy(seed=1), micro_batch=3, resume_from=found)
    for name, tensor in everything(*toy_train(Plan(steps=6), micro_batch=3)[:2]).items():
        torch.testing.assert_close(everything(model, optimizer)[name], tensor, atol=1e-6, rtol=1e-5, msg=name)


def test_a_run_of_one_process_goes_on_sharded(pair: Path) -> None:
    end = torch.load(pair / "from-one" / "end-1.pt", weights_only=True)
    for name, tensor in toy_train(Plan(steps=6), micro_batch=3)[0].state_dict().items():
        torch.testing.assert_close(end[name], tensor, atol=1e-6, rtol=1e-5, msg=name)
    rows = [json.loads(line) for line in (pair / "from-one" / "rows-0.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 5, 6]


@pytest.mark.parametrize("total", [1, 2, 5, 8, 50257])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_rows_are_cut_as_torch_cuts_them(total: int, count: int) -> None:
    chunks = [list(one) for one in torch.arange(total).chunk(count)]
    ours = [list(rows_of(total, index, count)) for index in range(count)]
    assert [one for one in ours if one] == chunks


def test_only_the_second_fsdp_is_asked_for() -> None:
    assert not is_asked({})
    assert is_asked({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"})
    with pytest.raises(UsageError, match="FSDP2"):
        is_asked({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"})
