"""Starting programs that launch ranks in a folder of their own, where no process may be left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

import gptkit
from gptkit.system import ranks

TINY = ["pretrain", "text.txt", "--model", "shape.json", "--tokenizer", "char", "--compile", "off", "--device", "cpu"]
SIZES = ["--steps", "4", "--tokens-per-step", "64", "--sequence-length", "16", "--out", "run"]

PATIENCE = 150  # seconds, on a machine that has other work


@contextmanager
def watched(tmp_path: Path) -> Iterator[Path]:
    """Give a folder with a text and a model's shape, and see in the end that nothing works there."""
    (tmp_path / "text.txt").write_text("".join(f"line {i} of some text to learn.\n" for i in range(400)))
    shape = {"model_type": "gptkit", "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    (tmp_path / "shape.json").write_text(json.dumps(shape))
    yield tmp_path
    left = [one for one in psutil.process_iter() if _works_in(one, tmp_path)]
    for one in left:
        one.kill()
    assert not left


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.pid != os.getpid() and process.cwd() == str(folder) and process.status() != "zombie"
    except psutil.Error:
        return False


def start(place: Path, *words: str, python: str = "-mgptkit", **environment: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name not in (*ranks.LAUNCHED, ranks.FOLDER)}
    paths = os.pathsep.join(filter(None, [environment.pop("PYTHONPATH", ""), str(Path(gptkit.__file__).parents[1])]))
    own = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GPTKIT_CACHE": str(place / "cache"), "HF_HOME": str(place)}
    return subprocess.Popen(
        [sys.executable, python, *words],
        cwd=place,
        env=kept | own | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (path.exists() and path.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until_nothing_is_left(place: Path) -> None:
    deadline = time.monotonic() + 20
    while any(_works_in(one, place) for one in psutil.process_iter()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
