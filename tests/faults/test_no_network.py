"""R25: nothing tries to reach another machine unless something on the hub was named, and then it says so at once.

Commands run with loopback alone (a network name space of their own, where the system grants one), and a hook in every
Python process writes down each attempt. `--faults-full` runs the whole test suite so.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from small_runs import SmallRuns

from generation_toy import write_model

TESTS = Path(__file__).parents[1]
WATCHED = Path(__file__).parent / "watched"
ALONE = ["unshare", "-rn", "sh", "-c", 'ip link set lo up 2>/dev/null; exec "$@"', "sh"]
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


@functools.cache
def alone() -> list[str]:
    """Return the words before a command that take the network away from it, none where the system grants no such."""
    if shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], capture_output=True).returncode:
        return []
    return ALONE


def run(words: Sequence[str], folder: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a command without network; return how it ended, and the connections that it or a child attempted."""
    attempts = folder / "attempts"
    attempts.unlink(missing_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    kept |= {"PYTHONPATH": str(WATCHED), "CONNECTIONS": str(attempts), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([*alone(), *words], cwd=folder, env=kept, capture_output=True, text=True)
    return done, attempts.read_text().splitlines() if attempts.exists() else []


def gptkit(*words: object) -> list[str]:
    return [sys.executable, "-m", "gptkit", *map(str, words)]


def lines(small: SmallRuns, model: Path, folder: Path) -> dict[str, list[str]]:
    """Return a command line of every kind."""
    text, run_ = small.folder / "text.txt", folder / "run"
    return {
        "pretrain": gptkit(*small.pretrain(run_, steps=2, eval_every=2)),
        "generate": gptkit("generate", "First", "--model", model, "--max-new-tokens", 2),
        "finetune": gptkit(*small.finetune(folder / "tuned", epochs=1)),
        "eval": gptkit("eval", "--model", model, "--task", "perplexity", "--data", text),
        "convert": gptkit("convert", model, folder / "made", "--to", "hf"),
        "tokenizer": gptkit("tokenizer", "train", text, "--out", folder / "tokenizer"),
        "two processes": gptkit(*small.pretrain(folder / "two", steps=2, num_processes=2)),
        "env": gptkit("env"),
        "tasks": gptkit("tasks"),
        "recipes": gptkit("recipes", "ls"),
        "no such model": gptkit("generate", "--model", "gpt2"),
        "no such text": gptkit("pretrain", "wikitext", "--tokenizer", "gpt2"),
        "no such data": gptkit("finetune", "--task", "rte", "--model", model),
        "no such evaluation": gptkit("eval", "--task", "lambada", "--model", model),
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def test_the_hook_notices(tmp_path: Path) -> None:
    """Names, numbers and datagrams; in the process and in its child; not what stays on this machine."""
    code = "import socket, sys\nfor kind in (1, 2):\n try: socket.socket(2, kind).{}\n except OSError: pass"
    for call in ("connect(('198.51.100.7', 9))", "sendto(b'x', ('198.51.100.7', 9))"):
        _, attempts = run([sys.executable, "-c", code.format(call)], tmp_path)
        assert len(attempts) >= 1
        assert "198.51.100.7" in attempts[0]
    asks = "import socket; socket.gethostbyname('a.example')"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {asks!r}])"
    assert len(run([sys.executable, "-c", child], tmp_path)[1]) == 1
    assert run([sys.executable, "-c", code.format("connect(('127.0.0.1', 9))")], tmp_path)[1] == []


def test_no_command_reaches_out(tmp_path: Path, small: SmallRuns, model: Path, count: Any, figure: Any) -> None:
    every = lines(small, model, tmp_path)
    chosen = dict(list(every.items())[:: count(10, 1)])
    found = []
    for name, words in chosen.items():
        done, attempts = run(words, tmp_path)
        assert done.returncode == (2 if name.startswith("no such") else 0), f"{name}: {done.stderr}"
        found += [f"{name}: {one}" for one in attempts]
    where = "without network" if alone() else "with network (no name space granted)"
    figure(
        "R25",
        "command lines that name nothing on the hub",
        len(chosen),
        f"{len(found)} attempts to connect, {where}",
        bound="0",
    )
    assert not found, "\n".join(found)


HUB = {
    "model": gptkit("generate", "a", "--model", "hf:someone/model"),
    "text": gptkit("pretrain", "hf:someone/data"),
    "tokenizer": gptkit("tokenizer", "compare", "hf:someone/tokenizer", "char"),
}


def test_a_hub_that_cannot_be_reached_is_told_at_once(tmp_path: Path, count: Any, figure: Any) -> None:
    """The seconds of the probe: the same command that is refused for a name on this machine takes the rest.

    Of a command's trials the fastest counts: programs start later when the machine is busy, never sooner.
    """
    if not alone():
        pytest.skip("no network name space is granted here")
    slowest = 0.0
    chosen = dict(list(HUB.items())[: count(1, len(HUB))])
    for words in chosen.values():
        local = [one.replace("hf:", "./") for one in words]
        refused, unreached = [], []
        for _ in range(count(1, 5)):
            began = time.monotonic()
            run(local, tmp_path)
            between = time.monotonic()
            done, attempts = run(words, tmp_path)
            refused.append(between - began)
            unreached.append(time.monotonic() - between)
            assert done.returncode == 2, done.stderr
            assert len(done.stderr.splitlines()) <= 2
            assert "connect to the network" in done.stderr
            assert attempts  # the one that was asked for
        slowest = max(slowest, min(unreached) - min(refused))
    told = f"exit 2 in one line, {slowest:.1f} s after the start-up"
    figure("R25", "hf: names without a network", len(chosen), told, bound="2 lines, 1 s")
    assert slowest <= count(3, 1)  # a single trial may wait for the machine


def test_the_whole_suite_reaches_for_nothing(tmp_path: Path, count: Any, figure: Any) -> None:
    if not count(0, 1):
        pytest.skip("the whole suite runs with --faults-full alone")
    words = [sys.executable, *["-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", "-m"]]
    words.append("not slow and not network and not gpu")
    done, attempts = run([*words, str(TESTS), f"--ignore={TESTS / 'faults'}"], tmp_path)
    tail = done.stdout.splitlines()[-1] if done.stdout else done.stderr[-300:]
    figure("R25", "the fast tests but these", 1, f"{len(attempts)} attempts to connect; {tail}", bound="0")
    assert not attempts, "\n".join(attempts[:30])
    assert done.returncode == 0, done.stdout[-3000:]
