"""Processes and loaders come and go: the same samples, the same bits after any stop; a dead or frozen one ends all."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from children import command, start
from forked_ranks import fork_ranks
from signalled import SIGNALS, Shot, faults_of, shoot, whole
from small_runs import SmallRuns, checkpoints_of, identical, rows_of

from figures import Count, Report
from gptkit.finetune.job import finetuning_batches
from gptkit.pretrain.job import pretraining_batches
from gptkit.system.processor import cpu_has_bf16
from gptkit.tasks.encoding import EncodedExamples
from gptkit.text.blocks import TrainingBlocks
from gptkit.training.batches import Batches, GlobalBatch, global_batch, prefetched

SEED, STEPS = 14, 12

# R13: the samples of a step


def some_batches(kind: str) -> Batches:
    """Return the batches of a run of several epochs, whose steps no number of processes divides."""
    chance = np.random.default_rng(SEED)
    if kind == "pretrain":
        blocks = TrainingBlocks(chance.integers(0, 99, 400).astype(np.uint16), 8, seed=SEED)
        return pretraining_batches(blocks, sequence_length=8, rows_per_step=11, micro_batch=2)
    offsets = np.concatenate([[0], np.cumsum(chance.integers(3, 30, 2 * 50))])
    examples = EncodedExamples(np.full(offsets[-1], 5, np.int32), offsets, 2, np.arange(50) % 2, {})
    return finetuning_batches(examples, batch_size=11, seed=SEED, micro_batch=3, padded_tokens=200)


def samples(kind: str, processes: int, is_ahead: bool, first_step: int = 1) -> list[str]:
    """Return a hash of what each step trains on, over all processes, which load in a thread ahead or not."""
    batches = some_batches(kind)
    steps: dict[int, list[tuple[int, bytes]]] = {}
    for process in range(processes):
        own: Iterable[GlobalBatch] = (
            global_batch(step, batches(step), process, processes) for step in range(first_step, STEPS)
        )
        for step_batch in prefetched(own, pin=False) if is_ahead else own:
            for micro_batch in step_batch.micro_batches:
                batch = micro_batch.load()
                content = b"".join(batch[name].numpy().tobytes() for name in sorted(batch))
                if micro_batch.weight:
                    steps.setdefault(step_batch.step, []).append((micro_batch.first_row, content))
    return [hashlib.sha256(repr(sorted(parts)).encode()).hexdigest() for _, parts in sorted(steps.items())]


def test_a_step_has_the_same_samples_for_any_processes_loader_and_start(figure: Report) -> None:
    compared = 0
    for kind in ("pretrain", "finetune"):
        expected = samples(kind, 1, is_ahead=False)
        assert len(set(expected)) == STEPS - 1
        for processes in (1, 2, 4, 8):
            for is_ahead in (False, True):
                for first_step in (1, 2, 7):
                    assert samples(kind, processes, is_ahead, first_step) == expected[first_step - 1 :]
                    compared += 1
    outcome = f"{compared} runs simulated, every step's samples the same (real processes: tests/test_world_sizes.py)"
    figure("R13", "1, 2, 4, 8 processes x loaders x starts", compared, outcome, seed=SEED, bound="100%")


@pytest.mark.gpu
def test_eight_gpus_train_on_the_samples_of_one(small: SmallRuns, tmp_path: Path, figure: Report) -> None:
    fault = "8 real GPUs beside 1"
    if torch.cuda.device_count() < 8:
        figure("R13", fault, 0, "not run: fewer than 8 GPUs")
        pytest.skip("needs 8 CUDA devices")
    losses = []
    for processes in (1, 8):
        run = tmp_path / f"{processes}" / "run"
        changes = {"device": "cuda", "micro_batch": 1, "tokens_per_step": 16 * 16, "num_processes": processes}
        subprocess.run([sys.executable, "-m", "gptkit", *small.pretrain(run, **changes)], check=True)
        losses.append([row["loss"] for row in rows_of(run)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    figure("R13", fault, 1, "20 losses within 1e-5", bound="100%")


# R14: the same bits after any stop

STOPS = {
    "between micro-batches": ("accumulation", 4),
    "in the middle of an epoch": ("step", 4),
    "at the end of an epoch": ("step", 9),
    "in an evaluation": ("evaluation", 2),
    "after an evaluation": ("save", None),
    "at the last step": ("step", 19),
}


def cells() -> list[tuple[str, str, str, int]]:
    """Return every (stop, kind, precision, processes)."""
    return [
        (stop, kind, precision, processes)
        for stop in STOPS
        for kind in ("pretrain", "finetune")
        for precision in ("fp32", "bf16" if cpu_has_bf16() else "auto")
        for processes in (1, 2)
    ]


def test_a_run_stopped_anywhere_ends_in_the_same_bits(
    small: SmallRuns, tmp_path: Path, count: Count, figure: Report
) -> None:
    chance, failures = random.Random(SEED), []
    every = cells()
    chosen = every if count(0, 1) else [every[i] for i in (1, 30)]

    def words(kind: str, precision: str, processes: int, out: Path) -> list[str]:
        changes: dict[str, object] = {"precision": precision, "micro_batch": 1}
        return small.words(kind, out, **changes, **({"num_processes": 2} if processes == 2 else {}))

    @cache
    def uninterrupted(kind: str, precision: str, processes: int) -> Path:
        out = tmp_path / f"{kind}-{precision}-{processes}" / "run"
        out.parent.mkdir()
        child = start(whole, words(kind, precision, processes, out), log=out.parent / "log")
        assert child.wait() == 0, child.err
        return out

    for number, (stop, kind, precision, processes) in enumerate(chosen):
        phase, at = STOPS[stop]
        calls = at if at is not None else chance.randrange(20, 35)
        shot = Shot(phase, chance.choice(SIGNALS), calls, chance.random() < 0.5)
        out = tmp_path / f"{number}-{kind}" / "run"
        out.parent.mkdir()
        line = words(kind, precision, processes, out)
        shooting = shoot(line, shot, log=out.parent / "log")
        marked = _cut_evaluation(out)
        again = start(whole, line, log=out.parent / "again")
        assert again.wait() == 0, again.err
        found = faults_of(shooting, out)[:1] if shooting.code != shot.exit_code else []
        found += [one for one in identical(uninterrupted(kind, precision, processes), out) if one != marked]
        failures += [f"stopped {stop}, {kind} in {precision} on {processes}: {fault}" for fault in found]
    same = len(chosen) - len(failures)
    outcome = f"{len(chosen)} of {len(every)} cells, {same} bit-identical at the end (but for the row of an evaluation"
    outcome += " cut short, which stays in the state.json of its checkpoint)"
    figure("R14", "stops x command x precision x 1, 2 processes", len(chosen), outcome, seed=SEED, bound="100%")
    assert not failures, "\n".join(failures)


def _cut_evaluation(run: Path) -> str:
    """Return what may differ: a checkpoint of a step whose evaluation was cut short says so for good."""
    newest = checkpoints_of(run)[-1]
    is_cut = json.loads((newest / "state.json").read_text())["unfinished_row"] is not None
    return f"checkpoints/{newest.name}/state.json differs" if is_cut else ""


def test_resuming_with_one_moment_changed_would_be_noticed(small: SmallRuns, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "run", tmp_path / "b" / "run"
    for out, work in ((first, whole), (second, _careless)):
        out.parent.mkdir()
        child = start(work, small.pretrain(out, steps=4, eval_every=4), log=out.parent / "log")
        assert child.wait() == 0, child.err
    assert identical(first, second)


def _careless(words: list[str]) -> None:
    """Be a run that forgets its moments once."""
    from gptkit.training.optimizers import OptimizerSet

    step, taken = OptimizerSet.step, []

    def forgetful(self: OptimizerSet, *more: object) -> None:
        taken.append(True)
        if len(taken) == 3:
            self.parts[0].state.clear()
        step(self, *more)  # type: ignore[arg-type]

    OptimizerSet.step = forgetful  # type: ignore[method-assign]
    whole(words)


# R18: one process of two dies or stands still


def two_forked(words: list[str], folder: str, patience: float) -> None:
    """Be a launcher of two forked ranks, each of which leaves its process id and waits for no more than `patience`."""
    from gptkit.training import processes

    processes.STALL_SECONDS, processes.POLL_SECONDS = patience, 0.1

    fork_ranks(lambda rank: Path(folder, f"pid-{rank}").write_text(str(os.getpid())) and None)
    command(words)


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSTOP"])
def test_all_end_with_one_line_when_one_process_dies_or_stands_still(
    fault: str, small: SmallRuns, tmp_path: Path, count: Count, figure: Report
) -> None:
    chance, total, slowest = random.Random(f"{SEED} {fault}"), count(1, 20), 0.0
    for trial in range(total):
        folder = tmp_path / str(trial)
        folder.mkdir()
        words = small.pretrain(folder / "run", num_processes=2, steps=100_000, eval_every=50, save_every=40)
        patience = 1.0 if count(0, 1) == 0 else 20.0
        child = start(two_forked, words, str(folder), patience, log=folder / "log")
        _wait_for_rows(folder / "run" / "metrics.jsonl", 2)
        time.sleep(chance.random())
        victim = trial % 2
        family = psutil.Process(child.pid).children(recursive=True)
        began = time.monotonic()
        os.kill(int((folder / f"pid-{victim}").read_text()), getattr(signal, fault))
        code = child.wait(90)
        slowest = max(slowest, time.monotonic() - began)
        _, left = psutil.wait_procs(family, timeout=5)
        assert not left
        told = f"was killed by {fault}" if fault == "SIGKILL" else "was stopped by a signal and not continued"
        assert code == 6, child.err
        assert len(child.error_lines) == 1, child.err
        assert child.error_lines[0].startswith(f"error: process {victim} {told}"), child.err
        assert f"gptkit pretrain --resume {folder / 'run'}" in child.error_lines[0]
    outcome = f"all gone after at most {slowest:.1f} s, the line names the process, no orphan"
    figure("R18", f"{fault} of one of two processes", total, outcome, seed=SEED, bound="60 s")
    assert slowest < 60


def _wait_for_rows(path: Path, rows: int) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text().count("\n") >= rows):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_real_launch_ends_when_one_of_its_processes_dies(small: SmallRuns, tmp_path: Path) -> None:
    """The same with ranks that start as a user's do."""
    words = small.pretrain(tmp_path / "run", num_processes=2, steps=100_000)
    line = [sys.executable, "-m", "gptkit", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True) as launcher:
        _wait_for_rows(tmp_path / "run" / "metrics.jsonl", 2)
        ranks = psutil.Process(launcher.pid).children(recursive=True)
        victim = max(one.pid for one in ranks)
        os.kill(victim, signal.SIGKILL)
        said = launcher.communicate(timeout=60)[1]
    assert f"gptkit pretrain --resume {tmp_path / 'run'}" in said.splitlines()[-1]
    assert launcher.returncode == 6, said
    assert "was killed by SIGKILL" in said.splitlines()[-1]
    assert not psutil.wait_procs(ranks, timeout=5)[1]
