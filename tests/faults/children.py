"""Child processes for trials: forked from a server that has imported the libraries once, so that one starts in 50 ms.

A child calls the real entry point with a command line; its exit code and its one line of error are the product's. What
it prints goes to files. It computes on one thread, and dies with the server, which dies with the tests.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NoReturn

PRELOADED = ["pytest", "torch", "array_api_compat.torch", "matplotlib.backends.backend_agg", "PIL.JpegImagePlugin"]
PRELOADED += ["matplotlib.figure", "sklearn.metrics", "typer._adapters"]
PRELOADED += [f"gptkit.{name}" for name in ("pretrain.command", "finetune.command", "evaluate.command", "cli.main")]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
PR_SET_PDEATHSIG = 1

forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload(PRELOADED)


@dataclass(frozen=True)
class Child:
    """A trial in a process and a process group of its own; `log` is where `out` and `err` are read from."""

    process: ForkServerProcess
    log: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def out(self) -> str:
        return Path(f"{self.log}.out").read_text()

    @property
    def err(self) -> str:
        return Path(f"{self.log}.err").read_text()

    @property
    def error_lines(self) -> list[str]:
        """Return the lines that tell an error; a traceback's lines count too."""
        return [line for line in self.err.splitlines() if line.startswith(("error:", "Traceback", "  File "))]

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; a child that has ended already is left alone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout: float = 60.0) -> int:
        """Return the exit code, -9 for one that SIGKILL ended; raises TimeoutError, after ending its group."""
        self.process.join(timeout)
        code = self.process.exitcode
        if code is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            raise TimeoutError(f"still running after {timeout} s; it said: {self.err[-2000:]}")
        return code


def start(
    work: Callable[..., object], *arguments: object, log: Path, environment: Mapping[str, str] | None = None
) -> Child:
    """Start `work(*arguments)`, a function of a module that the child can import, with this process's environment."""
    whole = {**os.environ, **ONE_THREAD, **(environment or {})}
    process = forkserver.Process(target=_begin, args=(work, arguments, str(log), whole))
    with _one_thread():
        process.start()
    return Child(process, log)


def start_command(words: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> Child:
    """Start a command line of gptkit."""
    return start(command, list(words), log=log, environment=environment)


def run_command(words: Sequence[str], *, log: Path, timeout: float = 60.0) -> Child:
    """Run a command line of gptkit to its end."""
    child = start_command(words, log=log)
    child.wait(timeout)
    return child


def command(words: list[str]) -> NoReturn:
    """Be the program `gptkit` with these words, to the end of the process."""
    from gptkit.__main__ import main

    sys.argv = ["gptkit", *words]
    code: object = 1
    try:
        main()
    except SystemExit as end:
        code = end.code
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _begin(work: Callable[..., object], arguments: Sequence[object], log: str, environment: Mapping[str, str]) -> None:
    server = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background inherits none
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, name in ((1, f"{log}.out"), (2, f"{log}.err")):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    work(*arguments)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The server takes its number of threads from the environment in which the first child is started."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
