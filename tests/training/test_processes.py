"""Runs in processes of their own: two at once with gloo, and one that is told to stop."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from accelerate import Accelerator
from toy_processes import run_pair, start
from training_toy import bits_equal, everything, step_rows, supervised, toy, toy_train

from gptkit.errors import Diverged, InputError
from gptkit.system.run_layout import all_steps
from gptkit.training import processes
from gptkit.training.checkpoints import newest_committed
from gptkit.training.job import Plan


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes run twice: in `uneven/` with 4 micro-batches, in `idle/` with one, so that the second has none."""
    directory = tmp_path_factory.mktemp("pair")
    uneven = [str(directory / "uneven"), "micro_batch=3", "save_every=3", "keep_checkpoints=9"]
    idle = [str(directory / "idle"), "micro_batch=10", "steps=3"]
    run_pair(*uneven, "+", *idle)
    return directory


def assert_same_run(directory: Path, plan: Plan, micro_batch: int) -> None:
    """Compare what both processes saw and ended with against the same run in this process alone."""
    model, optimizer, events = toy_train(plan, micro_batch=micro_batch)
    ends = [torch.load(directory / f"end-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert bits_equal(*ends)
    for name, tensor in everything(model, optimizer).items():
        torch.testing.assert_close(ends[0][name], tensor, atol=1e-6, rtol=1e-5, msg=name)
    for rank in (0, 1):
        seen = [json.loads(line) for line in (directory / f"rows-{rank}.jsonl").read_text().splitlines()]
        for ours, theirs in zip(step_rows(events), seen, strict=True):
            assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-6)
            assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-5)
            assert theirs["tokens"] == ours["tokens"]


def test_an_infinite_loss_on_one_process_leaves_the_weights_of_both_unchanged(tmp_path: Path) -> None:
    run_pair(str(tmp_path / "run"), "infinite_rank=0", "steps=2", "log_every=2", code=Diverged.exit_code)
    for rank in (0, 1):
        end = torch.load(tmp_path / "run" / f"end-{rank}.pt", weights_only=True)
        assert all(torch.equal(end[name], tensor) for name, tensor in toy().state_dict().items())


def test_two_processes_see_one_runs_losses_dropout_and_denominator(pair: Path) -> None:
    """Rows supervise 1 to 6 tokens; micro-batches of 3, 3, 3 and 1 rows.

    A mean of the processes' means, or dropout from their own generators, would differ in the second digit.
    """
    per_process = [supervised(0, 3) + supervised(6, 3), supervised(3, 3) + supervised(9, 1)]
    assert per_process[0] != per_process[1]
    assert_same_run(pair / "uneven", Plan(steps=6, log_every=1), 3)
    assert [path.name for path in all_steps(pair / "uneven" / "checkpoints")] == ["step-000006", "step-000003"]


def test_a_process_without_a_micro_batch_keeps_in_step(pair: Path) -> None:
    assert_same_run(pair / "idle", Plan(steps=3, log_every=1), 10)


def test_a_run_of_two_processes_goes_on_in_one(pair: Path) -> None:
    found = newest_committed(pair / "idle" / "checkpoints")
    assert found.path is not None
    events = toy_train(Plan(steps=5, log_every=1), micro_batch=10, resume_from=found.path)[2]
    assert [row["step"] for row in step_rows(events)] == [4, 5]
    assert step_rows(events)[-1]["tokens"] == supervised(0, 50)


def test_sigterm_commits_and_exits_with_143(tmp_path: Path) -> None:
    process = start(str(tmp_path), "steps=5000", "pause=0.01")
    wait_for_row(tmp_path / "rows-0.jsonl", process)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 143, errors
    last = errors.splitlines()[-1]
    assert last.startswith("Interrupted: interrupted by SIGTERM")
    assert last.endswith("rerun the same command")
    found = newest_committed(tmp_path / "checkpoints")
    assert found.path is not None
    assert f"step {int(found.path.name[5:])} of 5000 is saved" in last


def test_what_the_main_process_did_is_broadcast_not_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A save asks four times; gathering sends every process's object to all, through the GPUs where those train."""
    sent = []
    monkeypatch.setattr(processes, "gather_object", lambda outcome: pytest.fail("gathered"))
    monkeypatch.setattr(processes, "broadcast_object_list", lambda outcome: sent.append(outcome) or outcome)
    main = cast("Accelerator", SimpleNamespace(num_processes=2, is_main_process=True, process_index=0))
    assert processes.on_main_process(main, lambda: "found") == "found"
    assert sent == [[("found", None)]]
    other = cast("Accelerator", SimpleNamespace(num_processes=2, is_main_process=False, process_index=1))
    monkeypatch.setattr(processes, "broadcast_object_list", lambda outcome: [(None, InputError("no space"))])
    with pytest.raises(InputError, match="no space"):
        processes.on_main_process(other, lambda: pytest.fail("the main process alone works"))


def wait_for_row(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
