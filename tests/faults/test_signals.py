"""Signals of users and schedulers in every phase of a run: a checkpoint, one line, 128 + signal; a second ends it."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from children import start
from signalled import PHASES, SIGNALS, Shot, faults_of, interrupted, random_shot, shoot, whole
from small_runs import SmallRuns, checkpoints_of

from figures import Count, Report

SEED = 4
KINDS = ("pretrain", "finetune")


@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_any_phase_ends_a_run_that_can_go_on(
    phase: str, small: SmallRuns, tmp_path: Path, count: Count, figure: Report
) -> None:
    chance = random.Random(f"{SEED} {phase}")
    total, failures, slowest = count(3, 100), [], 0.0
    for trial in range(total):
        processes = 1 + trial % 3 // 2 if count(0, 1) else 1 + (trial == 2 and phase in ("evaluation", "save"))
        shot = random_shot(chance, phase, SIGNALS[(trial + list(PHASES).index(phase)) % len(SIGNALS)], processes)
        kind = KINDS[chance.randrange(2)]
        out = tmp_path / f"{trial}-{kind}" / "run"
        out.parent.mkdir()
        words = small.words(kind, out, **(_of_two() if processes == 2 else {}))
        cache = out.parent / "cache" if phase == "tokenization" else None
        one = shoot(words, shot, log=out.parent / "log", cache=cache)
        slowest = max(slowest, one.seconds)
        failures += [f"{trial} {kind} on {processes}, {shot}: {fault}" for fault in faults_of(one, out)]
    place = "before or after training" if phase in ("tokenization", "writing the model") else "its step committed"
    outcome = f"{total - len(failures)} ended with 128 + signal in one line, {place}; at most {slowest:.1f} s"
    figure("R4", f"signals in: {phase}", total, outcome, seed=SEED, bound="100%, within 60 s")
    assert not failures, "\n".join(failures)


def _of_two() -> dict[str, object]:
    return {"num_processes": 2, "micro_batch": 1}  # two passes for each


def deaf(words: list[str], note: str) -> None:
    """Be a run whose third step takes a minute, in a single computation."""
    from gptkit.training.step import Trainer

    update = Trainer.update

    def slow(trainer: Trainer, loss: object, number: int, factor: float) -> object:
        if number == 3:
            Path(f"{note}-{os.environ.get('RANK', '0')}").write_text("here")
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
        return update(trainer, loss, number, factor)  # type: ignore[arg-type]

    Trainer.update = slow  # type: ignore[assignment, method-assign]
    from children import command
    from forked_ranks import fork_ranks

    fork_ranks(lambda rank: None)
    command(words)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_signal_ends_everything_at_once(
    processes: int, small: SmallRuns, tmp_path: Path, count: Count, figure: Report
) -> None:
    total, slowest = count(1, 20), 0.0
    for trial in range(total):
        folder = tmp_path / str(trial)
        folder.mkdir()
        words = small.pretrain(folder / "run", **(_of_two() if processes == 2 else {}))
        child = start(deaf, words, str(folder / "note"), log=folder / "log")
        for rank in range(processes):
            _wait_for(folder / f"note-{rank}")
        family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
        number = getattr(signal, SIGNALS[trial % 5])  # after SIGXCPU the kernel repeats it
        child.kill(number)
        time.sleep(1.5)
        assert child.process.is_alive()
        assert child.err.count(f"{number.name} received; stopping after the current step.") == 1
        began = time.monotonic()
        child.kill(number)
        child.wait(10)
        _, left = psutil.wait_procs(family[1:], timeout=10)
        slowest = max(slowest, time.monotonic() - began)
        assert not left
    where = "two processes" if processes == 2 else "one process"
    outcome = f"all gone after at most {slowest:.1f} s"
    figure("R4", f"a second signal in a long computation, {where}", total, outcome, bound="2 s")
    assert slowest < 2


def test_a_batch_system_may_signal_the_launcher_and_its_ranks_at_once(small: SmallRuns, tmp_path: Path) -> None:
    """The ranks hear of it twice, since the launcher passes its signal on: that is one request."""
    run = tmp_path / "run"
    words = small.pretrain(run, steps=100_000, eval_every=50_000, save_every=50_000, **_of_two())
    child = start(whole, words, log=tmp_path / "log")
    _wait_for(run / "metrics.jsonl")
    for one in (*psutil.Process(child.pid).children(recursive=True), child):
        os.kill(one.pid, signal.SIGTERM)
    assert child.wait() == 143
    [line] = child.error_lines
    assert f"is saved) - resume with: gptkit pretrain --resume {run}" in line
    assert len(checkpoints_of(run)) == 1


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_trial_that_commits_nothing_would_be_noticed(small: SmallRuns, tmp_path: Path) -> None:
    """A run that ignores signals is what the check is there to find."""
    child = start(_ignoring, small.pretrain(tmp_path / "run"), log=tmp_path / "log")
    assert child.wait() == 0
    assert faults_of(_shooting(child), tmp_path / "run")


def _ignoring(words: list[str]) -> None:
    from gptkit.system import signals

    signals.StopRequest._receive = lambda self, number, frame: None  # type: ignore[method-assign]
    interrupted(words, Shot("step", "SIGTERM", 3, True), f"{words[-1]}.note")


def _shooting(child: object) -> object:
    from signalled import Shooting

    return Shooting(Shot("step", "SIGTERM", 3, True), child, 0, 3, 0.0)  # type: ignore[arg-type]
