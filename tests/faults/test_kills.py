"""SIGKILL at random moments, an end before every effect on files, crash loops: the command ends in the same bits."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from children import Child, start, start_command
from effects import TRACE, effects_of, killed_at, recorded, spread
from small_runs import SAVE_EVERY, Reference, SmallRuns, identical

from figures import Count, Report

KINDS = ["pretrain", "finetune"]
SHORT: dict[str, dict[str, object]] = {
    "pretrain": {"steps": 6, "eval_every": 3},  # the first save, another, and one that prunes
    "finetune": {"epochs": 1, "save_every": 4},
}


def begin(words: list[str], folder: Path) -> Child:
    """Start a command with a cache of its own, so that tokenizing is hit as well."""
    return start_command(words, log=folder / "log", environment={"GPTKIT_CACHE": str(folder / "cache")})


def settle(words: list[str], whole: Path, folder: Path) -> dict[str, Any]:
    """Give the same command again, which must end in the bits of `whole`; return its result."""
    child = begin(words, folder)
    assert child.wait() == 0, child.err
    assert identical(whole, folder / "run") == []
    result: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text())
    return result


def is_in_a_save(run: Path) -> bool:
    """Say whether a checkpoint is there that is not committed, or not wholly removed."""
    steps = list(run.glob("checkpoints/*step-*"))
    return any(not (path / "MANIFEST.json").exists() or path.name.startswith("removed") for path in steps)


def last_row(run: Path) -> int:
    """Return the step that a killed run had come to; its last line may be torn."""
    path = run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def wait_for_a_save(child: Child, run: Path, saves: int) -> None:
    """Return during the `saves`-th save, or when the child has ended."""
    seen: set[str] = set()
    while child.process.is_alive():
        seen |= {path.name for path in run.glob("checkpoints/step-*")}
        if len(seen) >= saves:
            return
        time.sleep(0.0005)


@pytest.mark.parametrize("kind", [*KINDS, "lstm"])
def test_a_kill_at_a_random_moment_loses_no_more_than_a_save_interval(
    kind: str, small: SmallRuns, reference: Reference, tmp_path: Path, count: Count, figure: Report
) -> None:
    """Half of the moments are uniform over a run's time, half over the time of one of its saves."""
    chance, whole = random.Random(1), reference(kind)
    seconds = json.loads((whole / "result.json").read_text())["elapsed_seconds"]
    wanted, kills, in_saves, lost = count(1, 200), 0, 0, []
    while kills < wanted:
        folder = tmp_path / f"{kills}"
        folder.mkdir(exist_ok=True)
        words = small.words(kind, folder / "run")
        child = begin(words, folder)
        if (kills + (kind == "finetune")) % 2:
            time.sleep(chance.uniform(0, seconds))
        else:
            wait_for_a_save(child, folder / "run", chance.randint(1, 10))
            time.sleep(chance.uniform(0, 0.01))
        child.kill()
        if child.wait() == 0:  # it was faster
            shutil.rmtree(folder)
            continue
        kills += 1
        in_saves += is_in_a_save(folder / "run")
        reached = last_row(folder / "run")
        lost.append(reached - (settle(words, whole, folder)["resumed_from"] or 0))
        shutil.rmtree(folder)
    assert max(lost) <= SAVE_EVERY
    assert in_saves >= 0.3 * kills or not count(0, 1)
    outcome = f"{kills} of {kills} ended by the same command in the same bits, {in_saves} killed inside a save"
    outcome += f"; at most {max(lost)} steps made again"
    bound = "0 lost, bit-identical, at most 1 save interval again"
    figure("R1", f"SIGKILL at a random moment, {kind}", kills, outcome, seed=1, bound=bound)


@pytest.mark.slow
def test_a_kill_in_a_run_of_several_seeds_changes_nothing(
    small: SmallRuns, reference: Reference, tmp_path: Path, count: Count, figure: Report
) -> None:
    chance, whole = random.Random(10), reference("finetune", seeds=2, epochs=1)
    seconds = json.loads((whole / "result.json").read_text())["elapsed_seconds"]
    wanted, kills = count(1, 40), 0
    while kills < wanted:
        folder = tmp_path / f"{kills}"
        folder.mkdir(exist_ok=True)
        words = small.words("finetune", folder / "run", seeds=2, epochs=1)
        child = begin(words, folder)
        time.sleep(chance.uniform(0, 2 * seconds))  # of both, and what comes after them
        child.kill()
        if child.wait() != 0:
            kills += 1
            settle(words, whole, folder)
        shutil.rmtree(folder)
    outcome = f"{kills} of {kills} ended by the same command in the same bits"
    figure("R1", "SIGKILL in a finetune run of two seeds", kills, outcome, seed=10, bound="0 lost, bit-identical")


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_before_any_effect_on_files_changes_nothing(
    kind: str, small: SmallRuns, reference: Reference, tmp_path: Path, count: Count, figure: Report
) -> None:
    changes = SHORT[kind]
    whole, chance = reference(kind, **changes), random.Random(2)
    effects = effects_of(whole)
    is_save = [line.split(" ", 1)[1].startswith("checkpoints") for line in effects]
    chosen = spread(chance, len(effects), count(2, len(effects)))
    for turn in chosen:
        folder = tmp_path / f"{turn}"
        folder.mkdir()
        words = small.words(kind, folder / "run", **changes)
        child = start(killed_at, words, folder / "run", turn, log=folder / "log")
        assert child.wait() == 137, f"{turn}: {child.err}"
        committed = [before for before in effects[: turn - 1] if re.match(r"rename checkpoints/.*MANIFEST", before)]
        assert len(list(folder.glob("run/checkpoints/step-*/MANIFEST.json"))) >= min(1, len(committed))
        settle(words, whole, folder)
        shutil.rmtree(folder)
    inside = sum(is_save[turn - 1] for turn in chosen)
    outcome = f"{len(chosen)} of {len(chosen)} ended in the same bits ({len(effects)} effects in the run, {inside} of"
    outcome += " those hit belong to saves); never fewer than 1 committed checkpoint after the first"
    figure("R2", f"an end before the k-th effect on files, {kind}", len(chosen), outcome, seed=2, bound="100% of k")


def test_an_end_while_a_finished_run_is_given_more_steps_changes_nothing(
    small: SmallRuns, reference: Reference, tmp_path: Path, count: Count, figure: Report
) -> None:
    """A wsd run goes back to before its decay: its result, config, checkpoints, snapshots and rows change."""
    more: dict[str, object] = {"schedule": "wsd", "eval_every": 3, "steps": 10}
    finished = reference("pretrain", **{**more, "steps": 6})
    raised = tmp_path / "raised" / "run"
    shutil.copytree(finished, raised)
    child = start(recorded, small.pretrain(raised, **more), raised, raised.parent / TRACE, log=raised.parent / "log")
    assert child.wait() == 0, child.err
    weights = Path("model", "model.safetensors")
    assert (raised / weights).read_bytes() == (reference("pretrain", **more) / weights).read_bytes()
    effects, chance = effects_of(raised), random.Random(4)
    reopening = next(number for number, line in enumerate(effects) if line.startswith("mkdir checkpoints/"))
    chosen = [*spread(chance, reopening, count(3, reopening)), *range(reopening + 1, len(effects), count(150, 10))]
    for turn in chosen:
        folder = tmp_path / f"{turn}"
        shutil.copytree(finished, folder / "run")
        words = small.pretrain(folder / "run", **more)
        child = start(killed_at, words, folder / "run", turn, log=folder / "log")
        assert child.wait() == 137, f"{turn}: {child.err}"
        settle(words, raised, folder)
        shutil.rmtree(folder)
    outcome = f"{len(chosen)} of {len(chosen)} ended in the same bits ({reopening} effects before the first new save)"
    figure("R2", "an end before the k-th effect on files, more steps", len(chosen), outcome, seed=4, bound="100% of k")


@pytest.mark.parametrize("kind", ["pretrain", pytest.param("finetune", marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bits(
    kind: str, small: SmallRuns, reference: Reference, tmp_path: Path, count: Count, figure: Report
) -> None:
    chance, whole = random.Random(3), reference(kind)
    loops, kills = count(1, 5), count(4, 20)
    for loop in range(loops):
        folder = tmp_path / f"{loop}"
        folder.mkdir()
        words = small.words(kind, folder / "run")
        for _ in range(kills):
            child = begin(words, folder)
            if chance.random() < 0.5:  # while it starts or goes back
                time.sleep(chance.uniform(0, 0.4))
            else:
                steps = len(list(folder.glob("run/checkpoints/step-*")))
                wait_for_a_save(child, folder / "run", steps + 1)
                time.sleep(chance.uniform(0, 0.02))  # or nothing would ever be committed
            child.kill()
            child.wait()
        settle(words, whole, folder)
    outcome = f"{loops} of {loops} runs, killed {kills} times in a row each, ended in the same bits"
    figure("R3", f"crash loop, {kind}", loops * kills, outcome, seed=3, bound="20 in a row, bit-identical")
