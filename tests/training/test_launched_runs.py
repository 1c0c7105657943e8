"""Runs of several processes, from the command line: how they begin, and that they end, together and in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from launch_place import SIZES, TINY, ended, start, wait_for, wait_until_nothing_is_left, watched

from gptkit.training.options import config_path

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with watched(tmp_path) as place:
        yield place


def test_two_processes_train_and_print_one_object(place: Path) -> None:
    code, out, err = ended(start(place, *TINY, *SIZES, "--num-processes", "2", "--json"))
    assert code == 0, err
    assert json.loads(out)["steps"] == 4  # one object and no more
    assert (
        "launched 2 processes on the CPU (gloo), 1 thread each; to launch them by hand: OMP_NUM_THREADS=1 torchrun"
        in err
    )
    assert err.count("step 4/4") == 1
    assert yaml.safe_load((place / "run" / "config.yaml").read_text())["num_processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whom", "number", "code", "message"),
    [
        ("launcher", signal.SIGINT, 130, "interrupted by SIGINT (step "),  # as Ctrl-C: ranks have sessions of their own
        ("launcher", signal.SIGTERM, 143, "interrupted by SIGTERM (step "),
        ("launcher", signal.SIGUSR2, 140, "interrupted by SIGUSR2 (step "),
        ("launcher", signal.SIGKILL, -9, None),
        ("1", signal.SIGTERM, 143, "interrupted by SIGTERM (step "),
        ("1", signal.SIGKILL, 6, "process 1 was killed by SIGKILL"),
        ("0", signal.SIGKILL, 6, "process 0 was killed by SIGKILL"),
    ],
)
def test_signals_end_all_ranks_with_one_line(
    whom: str, number: signal.Signals, code: int, message: str | None, place: Path
) -> None:
    process = start(place, *TINY, *SIZES, "--steps", "100000", "--num-processes", "2")
    wait_for(place / "run" / "metrics.jsonl", process)
    os.kill(process.pid if whom == "launcher" else rank_of(process, whom), number)
    found, _, err = ended(process)
    wait_until_nothing_is_left(place)
    assert found == code, err
    assert [line[: len(message)] for line in errors_in(err)] == [message] if message else True
    if number != signal.SIGKILL or whom == "launcher":
        assert list((place / "run" / "checkpoints").glob("step-*/MANIFEST.json"))
    assert err.count("gptkit pretrain --resume run") == (1 if message else 0)  # a killed launcher is mute


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_rank_whose_environment_is_broken_ends_all(rank: str, place: Path) -> None:
    (place / "broken").mkdir()
    spoil = f"import os, sys\nif os.environ.get('RANK') == '{rank}': sys.modules['transformers'] = None\n"
    (place / "broken" / "sitecustomize.py").write_text(spoil)
    words = [*TINY, *SIZES, "--num-processes", "2", "--json"]
    code, out, err = ended(start(place, *words, PYTHONPATH=str(place / "broken")))
    assert code == 6, err
    assert json.loads(out)["error"]["message"].startswith(f"process {rank} could not start: ModuleNotFoundError")
    assert len(errors_in(err)) == 1


@pytest.mark.slow
def test_two_launches_at_once_do_not_meet(place: Path) -> None:
    both = [start(place, *TINY, *SIZES, "--out", name, "--num-processes", "2", "--json") for name in ("one", "two")]
    losses = []
    for process in both:
        code, out, err = ended(process)
        assert code == 0, err
        losses.append(json.loads(out)["train_loss"])
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_fsdp2_runs_through_each_launcher(place: Path) -> None:
    """By gptkit, and by accelerate launch with the shipped file, which starts several processes on a CPU as well."""
    file = str(config_path("fsdp2"))
    words = [*TINY, *SIZES, "--optimizer", "adamw", "--json"]
    lines = {
        "ours": ["-mgptkit", *words, "--num-processes", "2", "--accelerate-config", "fsdp2"],
        "by hand": [
            *[
                "-maccelerate.commands.launch",
                "--config_file",
                file,
                "--num_processes",
                "2",
                "--main_process_port",
                "0",
            ],
            *["-m", "gptkit", *words],
        ],
        "ddp": ["-mgptkit", *words, "--num-processes", "2"],
    }
    losses = {}
    for name, (python, *line) in lines.items():
        code, out, err = ended(start(place, *line, "--out", name, python=python))
        assert code == 0, err
        losses[name] = json.loads(out)["train_loss"]
    assert losses["ours"] == losses["by hand"] == pytest.approx(losses["ddp"], rel=1e-6)


def rank_of(launcher: subprocess.Popen[str], rank: str) -> int:
    children = psutil.Process(launcher.pid).children(recursive=True)
    return next(one.pid for one in children if one.environ().get("RANK") == rank)


def errors_in(text: str) -> list[str]:
    return [line.removeprefix("error: ") for line in text.splitlines() if line.startswith("error: ")]
