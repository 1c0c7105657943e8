"""Signals: the first asks and is acknowledged, a second one ends the process, and duplicates count once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import gptkit
from gptkit.errors import Interrupted
from gptkit.system.signals import HANDLED, NAMES, TOGETHER, StopRequest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill()")

ASKING = """
import ctypes, hashlib, sys, time
from gptkit.system.signals import StopRequest
def say(text):
    sys.stdout.write(f"{text}\\n")
    sys.stdout.flush()
with StopRequest(say) as stop:
    say("ready")
    BODY
    say("over" if stop.is_asked else "missed")
"""
HOLDING = "sum(range(10**12))"  # a call into C that lets no other thread run
LETTING = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
# And one that does, in which SIGINT and SIGQUIT are ignored.
WORK = "ctypes.CDLL(None).system(b'sleep 2')"
ASKED = "\n    while not stop.is_asked: time.sleep(0.01)\n    say('asked')"


@contextmanager
def asking(body: str, script: str = ASKING, **more: object) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(Path(gptkit.__file__).parents[1])}
    line = [sys.executable, "-c", script.replace("BODY", body)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment, **more) as process:  # type: ignore[call-overload]
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def rest_of(process: subprocess.Popen[str]) -> list[str]:
    return process.communicate(timeout=20)[0].splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_signals_ask_once_and_the_old_handlers_come_back(name: str) -> None:
    number = getattr(signal, name)
    previous = [signal.getsignal(one) for one in HANDLED]
    with contextlib.suppress(Interrupted), StopRequest() as stop:
        assert not stop.is_asked
        os.kill(os.getpid(), number)
        assert stop.is_asked
        assert stop.signal_number == number
        raise Interrupted("granted", signal_number=number)
    assert [signal.getsignal(one) for one in HANDLED] == previous
    assert Interrupted("asked", signal_number=number).exit_code == 128 + number


def test_a_request_that_came_too_late_reaches_the_old_handler() -> None:
    heard: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        with StopRequest():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not heard
        assert heard == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, previous)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGUSR2", "SIGXCPU"])
def test_a_signal_in_a_long_call_is_acknowledged_once_and_obeyed_after_it(name: str) -> None:
    with asking(WORK) as process:
        assert process.stdout is not None
        process.send_signal(getattr(signal, name))
        process.send_signal(getattr(signal, name))  # as a closing terminal and timeout(1) do
        sent = time.monotonic()
        acknowledged = process.stdout.readline()
        assert time.monotonic() - sent < 2
        assert acknowledged.startswith(f"{name} received; stopping after the current step.")
        assert rest_of(process) == ["over"]


@pytest.mark.parametrize("busy", [HOLDING, LETTING])
def test_a_second_signal_ends_the_process_even_in_a_long_call_that_began_after_the_first(busy: str) -> None:
    with asking(f"{ASKED}\n    {busy}") as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        while process.stdout.readline() != "asked\n":
            continue
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=2) == -signal.SIGINT


def test_a_second_signal_ends_the_process_even_in_the_call_that_the_first_came_to() -> None:
    with asking(LETTING) as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(TOGETHER + 0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=2) == -signal.SIGTERM


def test_the_kernels_repeated_cpu_time_warnings_end_nothing() -> None:
    with asking(WORK) as process:
        for _ in range(3):
            process.send_signal(signal.SIGXCPU)
            time.sleep(TOGETHER + 0.2)
        assert rest_of(process)[-1] == "over"


def test_what_nohup_ignores_stays_ignored_but_not_what_a_shell_ignores_in_the_background() -> None:
    ignored = ("SIGHUP", "SIGINT", "SIGQUIT")

    def ignore() -> None:
        for name in ignored:
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    for name, heard in zip(ignored, ("missed", "over", "over"), strict=True):
        with asking("time.sleep(0.5)", preexec_fn=ignore) as process:
            process.send_signal(getattr(signal, name))
            assert rest_of(process)[-1] == heard


COMMAND = """
import ctypes, sys, time
from gptkit.cli import main as cli
from gptkit.errors import UsageError
def busy(*_):
    print("ready", flush=True)
    BODY
cli._run = busy
sys.exit(cli.main(["recipes", "ls"]))
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_ends_any_command_in_one_line(name: str) -> None:
    with asking("time.sleep(60)", COMMAND, stderr=subprocess.PIPE) as process:
        process.send_signal(getattr(signal, name))
        process.send_signal(getattr(signal, name))
        error = process.communicate(timeout=10)[1]
        # In a shell the same, should the second one find the program at its very end.
        assert process.returncode in (128 + getattr(signal, name), -getattr(signal, name))
        words = "interrupted" if name == "SIGINT" else f"interrupted by {name}"
        assert error == f"error: {words} - rerun the same command\n"


def test_a_signal_in_a_long_call_of_any_command_is_acknowledged() -> None:
    with asking(WORK, COMMAND, stderr=subprocess.PIPE) as process:
        time.sleep(0.5)  # until the call has begun
        process.send_signal(signal.SIGTERM)
        lines = process.communicate(timeout=10)[1].splitlines()
        assert process.returncode == 143
        assert [line.partition(";")[0] for line in lines] == [
            "SIGTERM received",
            "error: interrupted by SIGTERM - rerun the same command",
        ]


def test_a_second_signal_while_the_first_is_reported_leaves_no_traceback() -> None:
    body = "cli.Console.error = lambda *_: time.sleep(60)\n    raise UsageError('wrong')"
    with asking(body, COMMAND, stderr=subprocess.PIPE) as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=10)[1] == ""
        assert process.returncode == 143
