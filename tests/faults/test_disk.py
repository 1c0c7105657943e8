"""Disks that fill up, that lose what was not synced, that are read-only or vanish, and two runs in one directory."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import mounts
import pytest
from children import Child, command, run_command, start, start_command
from durability import CALLS, may_trace, system_calls, too_early
from effects import TAKING_SPACE, effects_of, full_from, spread, vanishing_at
from small_runs import Reference, SmallRuns, checkpoints_of, identical

from figures import Count, Report
from gptkit.errors import AGAIN
from gptkit.recipes import CONFIG
from gptkit.system.run_layout import defect

KINDS = ["pretrain", "finetune"]
MEGABYTE = 1 << 20


def told_in_one_line(child: Child) -> str:
    """Return the one line of an error; there is no traceback."""
    [line] = child.error_lines
    assert line.startswith("error: "), child.err
    assert " - " in line
    return line


def settle(words: list[str], whole: Path, run: Path) -> None:
    """Give the same command again, which must end in the bits of `whole`."""
    child = run_command(words, log=run.parent / "log")
    assert child.wait() == 0, child.err
    assert identical(whole, run) == []


@pytest.mark.parametrize("kind", ["pretrain", pytest.param("finetune", marks=pytest.mark.slow)])
def test_a_disk_that_is_full_from_any_effect_on_damages_nothing(
    kind: str,
    small: SmallRuns,
    reference: Reference,
    tmp_path: Path,
    count: Count,
    figure: Report,
) -> None:
    chance, whole = random.Random(4), reference(kind)
    effects = len(effects_of(whole))
    turns = spread(chance, effects, count(1, 150))
    for turn in turns:
        run = tmp_path / f"{turn}" / "run"
        run.parent.mkdir()
        words = small.words(kind, run)
        child = start(full_from, words, run, turn, log=run.parent / "log")
        if child.wait() != 0:  # the last effects take no space
            assert child.wait() == 6, f"{turn}: {child.err}"
            line = told_in_one_line(child)
            assert "no space left" in line
            command = f"gptkit {kind} --resume {run}" if (run / CONFIG).exists() else AGAIN
            assert command in line
        assert [defect(path) for path in checkpoints_of(run)] == [None] * len(checkpoints_of(run))
        settle(words, whole, run)
        shutil.rmtree(run.parent)
    outcome = (
        f"exit 6 in one line, no committed checkpoint damaged; {len(turns)} of {len(turns)} ended in the same bits"
    )
    outcome += f" once there was space ({effects} effects in a run)"
    figure("R9", f"no space from the k-th effect on, {kind}", len(turns), outcome, seed=4, bound="0 damaged, exit 6")


def test_of_a_model_whose_copy_finds_no_space_nothing_is_left(
    small: SmallRuns, reference: Reference, tmp_path: Path, count: Count, figure: Report
) -> None:
    """The best seed's model is copied, file by file, when all seeds are done."""
    several = {"seeds": 2, "epochs": 1}
    whole = reference("finetune", **several)
    effects = [line.split(" ", 1) for line in effects_of(whole)]
    copying = [
        turn for turn, (kind, path) in enumerate(effects, 1) if kind in TAKING_SPACE and path.startswith("model.tmp")
    ]
    assert len(copying) > 8
    turns = copying[:: count(4, 1)]
    for turn in turns:
        run = tmp_path / f"{turn}" / "run"
        run.parent.mkdir()
        words = small.finetune(run, **several)
        child = start(full_from, words, run, turn, log=run.parent / "log")
        assert child.wait() == 6, f"{turn}: {child.err}"
        assert "no space left while copying the best model" in told_in_one_line(child)
        assert not list(run.glob("model*"))
        settle(words, whole, run)
    outcome = f"{len(turns)} of {len(turns)}: exit 6 in one line, no part of model/ left; then the same bits"
    figure("R9", "no space while the best seed's model is copied", len(turns), outcome, bound="0 damaged, exit 6")


def on_a_small_disk(words: list[str], disk: Path, free: int, copy: Path) -> None:
    """Run a command with `free` bytes left on a disk of 64 MB, then with all of them; keep what it made in `copy`."""
    try:
        mounts.own_mounts()
        mounts.mount_small_disk(disk, 64 * MEGABYTE)
    except mounts.Refused:
        os._exit(mounts.REFUSED)
    (disk / "filler").write_bytes(bytes(64 * MEGABYTE - free))
    first = mounts.forked(command, words)
    damaged = [path.name for path in checkpoints_of(disk / "run") if defect(path)]
    (disk / "filler").unlink()
    second = mounts.forked(command, words)
    shutil.copytree(disk / "run", copy)
    print(f"first {first}, damaged {damaged}, second {second}", flush=True)


def test_a_real_disk_that_fills_up_damages_nothing(
    small: SmallRuns, reference: Reference, tmp_path: Path, count: Count, figure: Report
) -> None:
    chance, full = random.Random(5), 0
    kinds = [KINDS[number % 2] for number in range(count(1, 40))]
    fault = "a tmpfs of 64 MB that fills up"
    for number, kind in enumerate(kinds):
        disk, copy = tmp_path / f"disk-{number}", tmp_path / f"{number}" / "run"
        disk.mkdir()
        copy.parent.mkdir()
        words, free = small.words(kind, disk / "run"), chance.randrange(8192, 160_000)
        child = start(on_a_small_disk, words, disk, free, copy, log=tmp_path / f"log-{number}")
        if child.wait() == mounts.REFUSED:
            figure("R9", fault, 0, "not run: nobody may mount here")
            pytest.skip("nobody may mount here")
        assert child.wait() == 0, child.err
        summary = child.out.splitlines()[-1]
        assert summary.startswith(("first 6, damaged [], second 0", "first 0, damaged [], second 0")), child.err
        full += summary.startswith("first 6")
        assert len(child.error_lines) == summary.startswith("first 6"), child.err
        assert identical(reference(kind), copy) == []
    assert full
    outcome = f"{full} filled up: exit 6 in one line, no checkpoint damaged, then the same bits; the others had room"
    figure("R9", fault, len(kinds), outcome, seed=5, bound="0 damaged, exit 6")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_vouched_for_before_it_is_durable(kind: str, reference: Reference, figure: Report) -> None:
    run = reference(kind)
    trace = effects_of(run)
    model = [str(path.relative_to(run)) for path in run.glob("model/*")] + ["loss.png"]
    assert too_early(trace, model) == []
    syncs = [turn for turn, line in enumerate(trace) if line.startswith("sync")]
    useless = [trace[turn] for turn in syncs if not too_early([*trace[:turn], *trace[turn + 1 :]], model)]
    commits = sum(line.startswith("rename") for line in trace)
    assert len(syncs) - len(useless) > 50
    outcome = f"all {commits} renames came after the syncs of what they vouch for ({len(syncs)} syncs, of which"
    outcome += f" {len(syncs) - len(useless)} could not be left out one by one)"
    figure("R10", f"a power cut before any rename, {kind}", commits, outcome, bound="100% synced before the rename")


@pytest.mark.slow
def test_the_system_calls_of_a_run_are_in_that_order(small: SmallRuns, tmp_path: Path, figure: Report) -> None:
    """What libraries write counts here too, as the kernel sees it."""
    run, trace = tmp_path / "run", tmp_path / "trace"
    if not (shutil.which("strace") and may_trace()):
        figure("R10", "a power cut before any rename, by strace", 0, "not run: no strace here")
        pytest.skip("no strace here")
    words = small.pretrain(run, steps=6)
    begin = ["strace", "-f", "-y", "-qq", "-s", "0", "-e", f"trace={','.join(CALLS)}", "-o", str(trace)]
    subprocess.run([*begin, sys.executable, "-m", "gptkit", *words], check=True, capture_output=True, timeout=300)
    calls = system_calls(trace.read_text(), run)
    assert too_early(calls) == []
    syncs = [turn for turn, line in enumerate(calls) if line.startswith("sync")]
    needed = [turn for turn in syncs if too_early([*calls[:turn], *calls[turn + 1 :]])]
    commits = sum(line.startswith("rename") for line in calls)
    assert commits > 5
    assert len(needed) > 20
    outcome = f"all {commits} renames of {len(calls)} system calls came after the syncs of what they vouch for"
    outcome += f" ({len(syncs)} syncs, of which {len(needed)} could not be left out one by one)"
    figure("R10", "a power cut before any rename, by strace", commits, outcome, bound="100% synced before the rename")


def read_only(words: list[str], folder: Path) -> None:
    try:
        mounts.own_mounts()
        mounts.mount_read_only(folder)
    except mounts.Refused:
        os._exit(mounts.REFUSED)
    command(words)


@pytest.mark.parametrize("state", ["empty", "half done"])
def test_a_read_only_directory_is_refused_in_one_line(
    state: str, small: SmallRuns, reference: Reference, tmp_path: Path, figure: Report
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if state == "half done":
        begun = start_command(small.pretrain(folder / "run"), log=tmp_path / "begun")
        while not checkpoints_of(folder / "run"):
            assert begun.process.is_alive(), begun.err
        begun.kill()
        begun.wait()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    words = small.pretrain(folder / "run")
    child = start(read_only, words, folder, log=tmp_path / "log")
    if child.wait() == mounts.REFUSED:
        figure("R11", f"a read-only bind mount, {state}", 0, "not run: nobody may mount here")
        pytest.skip("nobody may mount here")
    assert child.wait() == 2, child.err
    assert "ead-only file system" in told_in_one_line(child)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    outcome = "exit 2 in one line, nothing touched"
    if state == "half done":
        settle(words, reference("pretrain"), folder / "run")
        outcome += "; writable again, it ended in the same bits"
    figure("R11", f"a read-only bind mount, {state}", 1, outcome, bound="one line, exit 2")


@pytest.mark.parametrize("kind", ["pretrain", pytest.param("finetune", marks=pytest.mark.slow)])
def test_a_directory_that_vanishes_ends_the_run_in_one_line(
    kind: str,
    small: SmallRuns,
    reference: Reference,
    tmp_path: Path,
    count: Count,
    figure: Report,
) -> None:
    chance, whole = random.Random(6), reference(kind)
    trace = effects_of(whole)
    turns = spread(chance, len(trace), count(1, 60))
    for turn in turns:
        run = tmp_path / f"{turn}" / "run"
        run.parent.mkdir()
        words = small.words(kind, run)
        child = start(vanishing_at, words, run, turn, log=run.parent / "log")
        assert child.wait() == 2, f"{turn} {trace[turn - 1]}: {child.err}"
        told_in_one_line(child)
        settle(words, whole, run)
        shutil.rmtree(run.parent)
    outcome = f"{len(turns)} of {len(turns)}: exit 2 in one line; the same command then made the run anew"
    figure("R11", f"rm -rf of the run, {kind}", len(turns), outcome, seed=6, bound="one line, exit 2, 0 corrupted runs")


def test_of_two_runs_in_one_directory_one_is_refused_by_name(
    small: SmallRuns, reference: Reference, tmp_path: Path, count: Count, figure: Report
) -> None:
    pairs = count(1, 50)
    for number in range(pairs):
        run = tmp_path / f"{number}" / "run"
        run.parent.mkdir()
        words = small.pretrain(run)
        pair = [start_command(words, log=run.parent / name) for name in ("first", "second")]
        assert sorted(child.wait() for child in pair) == [0, 2], [child.err for child in pair]
        loser, winner = sorted(pair, key=lambda child: -child.wait())
        line = told_in_one_line(loser)
        assert f"in use by process {winner.pid} on {os.uname().nodename}" in line, line
        assert identical(reference("pretrain"), run) == []
        shutil.rmtree(run.parent)
    outcome = f"{pairs} of {pairs}: one went on to the same bits, the other named its process and host, exit 2"
    figure("R11", "two launches on one directory", pairs, outcome, bound="one line, exit 2, 0 corrupted runs")
