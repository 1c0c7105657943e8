"""Processes that prepare once and are then asked in turn: each stands still while another one is timed.

What is kept alive need not start anew each round, so the rows of a round follow each other closely. A stopped process
cannot disturb: thread pools of some libraries go on spinning after their work is done.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import psutil

Answer = Callable[..., float]


class Worker:
    """A process that runs `serve`; a RuntimeError names its command when it ends instead of answering."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._turns = psutil.Process(self._process.pid)
        self._read()  # it is prepared
        self._turns.suspend()

    def ask(self, **question: int) -> float:
        """Return the answer to the question; the process runs for no longer than that."""
        assert self._process.stdin is not None
        self._turns.resume()
        print(json.dumps(question), file=self._process.stdin, flush=True)
        answer = self._read()
        self._turns.suspend()
        return answer

    def _read(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._command)} ended with exit code {self._process.wait()}")
        return float(json.loads(line))

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()


def serve(prepare: Callable[[], Answer]) -> None:
    """Prepare, then answer the questions on stdin, a JSON object a line, until it closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer
    answer = prepare()
    print(0, file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), file=answers, flush=True)
