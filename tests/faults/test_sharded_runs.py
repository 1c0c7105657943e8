"""Runs whose weights are sharded over two processes (FSDP2): kills, and damage in the file of either process."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from children import Child, command, start
from forked_ranks import fork_ranks
from small_runs import SmallRuns, checkpoints_of, identical
from test_damage import flip, is_found, truncate

from figures import Count, Report

KINDS = ["pretrain", "finetune"]
pytestmark = pytest.mark.slow


def sharded(words: list[str]) -> None:
    """Be a launcher of two forked ranks."""
    fork_ranks(lambda rank: None)
    command(words)


def begin(words: list[str], run: Path) -> Child:
    return start(sharded, words, log=run.parent / "log")


def words_of(small: SmallRuns, kind: str, run: Path) -> list[str]:
    run.parent.mkdir(exist_ok=True)
    return small.words(kind, run, num_processes=2, accelerate_config="fsdp2", micro_batch=1)


@pytest.fixture(scope="module", params=KINDS)
def whole(request: pytest.FixtureRequest, small: SmallRuns, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, in a folder called by its kind."""
    run = tmp_path_factory.mktemp("whole") / request.param / "run"
    child = begin(words_of(small, request.param, run), run)
    assert child.wait() == 0, child.err
    assert len(list(checkpoints_of(run)[-1].glob("model-*-of-00002.safetensors"))) == 2
    return run


def test_a_kill_of_both_processes_changes_nothing(
    whole: Path, small: SmallRuns, tmp_path: Path, count: Count, figure: Report
) -> None:
    kind, chance, kills, slept = whole.parent.name, random.Random(21), 0, 0
    seconds = json.loads((whole / "result.json").read_text())["elapsed_seconds"]
    while kills < count(1, 20):
        run = tmp_path / f"{slept}" / "run"
        words = words_of(small, kind, run)
        child = begin(words, run)
        time.sleep(chance.uniform(0, seconds))
        slept += 1
        family = [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]
        for one in family:  # a rank that is alone does not come to a save
            one.kill()
        if child.wait() == 0:
            continue
        psutil.wait_procs(family[:-1], timeout=5)
        kills += 1
        again = begin(words, run)
        assert again.wait() == 0, again.err
        assert identical(whole, run) == []
        shutil.rmtree(run.parent)
    outcome = f"{kills} of {kills} ended by the same command in the same bits"
    figure("R1", f"SIGKILL of two sharding processes, {kind}", kills, outcome, seed=21, bound="bit-identical")


@pytest.mark.parametrize(("row", "damage"), [("R5", Path.unlink), ("R6", truncate), ("R7", flip)])
def test_damage_in_the_file_of_one_process_is_found(
    row: str,
    damage: Callable[..., None],
    whole: Path,
    small: SmallRuns,
    tmp_path: Path,
    count: Count,
    figure: Report,
) -> None:
    kind, chance = whole.parent.name, random.Random(22)
    names = [path.name for path in sorted(checkpoints_of(whole)[-1].iterdir())]
    chosen = names if damage is Path.unlink else chance.choices(names, k=count(1, 100))
    words = words_of(small, kind, tmp_path / kind / "run")
    run = Path(shutil.copytree(whole, tmp_path / kind / "run"))
    (run / "result.json").unlink()
    newest = checkpoints_of(run)[-1]
    for name in chosen:
        file = newest / name
        content = file.read_bytes()
        damage(*((file,) if damage is Path.unlink else (file, chance)))
        assert is_found(run), name
        file.write_bytes(content)
    damage(*((newest / names[-1],) if damage is Path.unlink else (newest / names[-1], chance)))
    child = begin(words, run)
    assert child.wait() == 0, child.err
    assert sum("is not used" in line for line in child.err.splitlines()) == 1, child.err
    assert identical(whole, run) == []
    outcome = f"{len(chosen)} of {len(chosen)} found, next older used; run to the end once: the same bits"
    figure(row, f"damage in sharded checkpoints, {kind}", len(chosen) + 1, outcome, seed=22, bound="100%")
