"""The same command twice gives the same bytes; fifty thousand steps leave memory and open files as they were."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from children import run_command, start_command
from small_runs import SmallRuns, checkpoints_of, identical

from figures import Count, Report
from gptkit.training.memory import own_memory


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_the_same_command_gives_the_same_bytes(
    kind: str, small: SmallRuns, reference: Callable[[str], Path], tmp_path: Path, count: Count, figure: Report
) -> None:
    total, expected = count(1, 20), reference(kind)
    for trial in range(total):
        out = tmp_path / str(trial) / "run"
        out.parent.mkdir()
        child = run_command(small.words(kind, out), log=out.parent / "log")
        assert child.wait() == 0, child.err
        assert identical(expected, out) == []
    outcome = f"{total} repeated: weights, moments, rows, result, picture byte for byte"
    figure("R26", f"the same {kind} again", total, outcome, bound="100%")


def test_the_same_prompt_and_seed_give_the_same_text(
    small: SmallRuns, tmp_path: Path, count: Count, figure: Report
) -> None:
    words = ["generate", "a red cat", "--model", str(small.pretrained), "--num-samples", "3", "--seed", "7"]
    words += ["--max-new-tokens", "40", "--json"]
    total, texts = count(2, 20), set()
    for trial in range(total):
        child = run_command(words, log=tmp_path / str(trial))
        assert child.wait() == 0, child.err
        texts.add(json.dumps(json.loads(child.out)["samples"]))
    figure("R26", "the same generate again", total, f"{len(texts)} different text(s)", bound="1")
    assert len(texts) == 1


def test_many_steps_leave_memory_and_open_files_flat(
    small: SmallRuns, tmp_path: Path, count: Count, figure: Report
) -> None:
    steps, keep = count(600, 50_000), 2
    changes = {"steps": steps, "eval_every": steps // 50, "save_every": steps // 100, "log_every": 10}
    words = small.pretrain(tmp_path / "run", micro_batch=None, **changes)
    child = start_command(words, log=tmp_path / "log")
    seen = list(_watched(child.pid, tmp_path / "run", steps))
    assert child.wait(600) == 0, child.err
    late = [one for one in seen if one[0] > steps / 3]  # what is made once is made by then
    hours = np.array([one[4] for one in late]) / 3600
    slope = float(np.polyfit(hours, np.array([one[1] for one in late]) / 2**20, 1)[0])
    grown = (late[-1][1] - late[0][1]) / 2**20
    files = {one[2] for one in late}
    most = max(one[3] for one in seen)
    is_full = count(0, 1) == 1  # a sample is over before an hour's slope can be told
    outcome = f"{slope:+.1f} MB an hour, " if is_full else ""
    outcome += f"{grown:+.2f} MB in all, {min(files)} to {max(files)} open files, at most {most} checkpoints"
    figure("R27", "steps of a tiny model", steps, outcome, bound="1 MB an hour, files as before, keep + 1")
    assert grown < 1
    assert slope < 1 or not is_full
    assert max(files) - min(files) <= 2  # the file that a save or a row has open
    assert most <= keep + 1
    assert len(checkpoints_of(tmp_path / "run")) == keep


def _watched(pid: int, run: Path, steps: int) -> list[tuple[int, int, int, int, float]]:
    """Return (step, own memory in bytes, open files, checkpoints, second) again and again until the last step."""
    process, found = psutil.Process(pid), []
    rows = run / "metrics.jsonl"
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        lines = rows.read_bytes().count(b"\n") if rows.exists() else 0
        step = 10 * (lines - 1)
        if step >= steps - 20:
            break
        memory = own_memory(pid)
        if step > 0 and memory is not None:
            found.append((step, memory, process.num_fds(), len(checkpoints_of(run)), time.monotonic()))
        time.sleep(0.1)
    return found
