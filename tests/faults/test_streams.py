"""A run outlives its standard streams: closed ones, a full device, a terminal that was closed while it trained."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from children import command, start
from small_runs import SmallRuns, checkpoints_of


def streamless(words: list[str]) -> None:
    """Be a run that was started with <&- >&- 2>&-."""
    for number in range(3):
        os.close(number)
    sys.stdin = sys.stdout = sys.stderr = None  # type: ignore[assignment]
    command(words)


def on_full_device(words: list[str]) -> None:
    """Be a run whose log goes to a device that is full."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
    command(words)


@pytest.mark.parametrize("work", [streamless, on_full_device])
def test_a_run_needs_no_standard_streams(work: object, small: SmallRuns, tmp_path: Path) -> None:
    child = start(work, small.pretrain(tmp_path / "run"), log=tmp_path / "log")  # type: ignore[arg-type]
    assert child.wait() == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 20


def on_terminal(words: list[str], name: str) -> None:
    """Be a run whose log goes to a terminal."""
    os.dup2(os.open(name, os.O_RDWR), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    command(words)


def test_a_terminal_closed_in_training_costs_no_step(small: SmallRuns, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 150))
    is_closed = threading.Event()

    def show() -> None:
        while not is_closed.is_set():
            if select.select([master], [], [], 0.05)[0]:
                os.read(master, 1 << 16)
        os.close(master)

    terminal = threading.Thread(target=show)
    terminal.start()
    words = small.pretrain(tmp_path / "run", steps=100_000, eval_every=50_000, save_every=50_000)
    environment = {"TERM": "xterm", "CI": "", "GITHUB_ACTIONS": ""}
    child = start(on_terminal, words, os.ttyname(slave), log=tmp_path / "log", environment=environment)
    rows = tmp_path / "run" / "metrics.jsonl"
    try:
        while not (rows.exists() and rows.read_text()):
            assert child.process.is_alive()
            time.sleep(0.05)
    finally:
        is_closed.set()
        terminal.join()
        os.close(slave)
    time.sleep(0.7)  # the display redraws itself, and cannot
    child.kill(signal.SIGHUP)
    assert child.wait() == 128 + signal.SIGHUP
    last = json.loads(rows.read_text().splitlines()[-1])["step"]
    assert [int(path.name.removeprefix("step-")) >= last for path in checkpoints_of(tmp_path / "run")] == [True]
