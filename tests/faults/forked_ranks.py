"""`--num-processes N` with ranks forked from the launcher, which need import nothing: a launch takes a second, not ten.

All else is as torch's elastic launcher does it for programs: it waits for them, passes signals on, collects exit codes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from children import command
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

from gptkit.system.signals import HANDLED

Prepare = Callable[[int], None]  # given the rank, in its process


def fork_ranks(prepare: Prepare) -> None:
    """From now on this process's launcher forks its ranks, which call `prepare` first."""

    class Forked(subprocess.Popen[str]):
        def _execute_child(self, words: Any, *more: Any) -> None:
            environment = next(one for one in more if isinstance(one, dict))
            sys.stdout.flush()
            sys.stderr.flush()
            self.pid = os.fork()
            self._child_created = True
            if not self.pid:
                _be_rank(list(words), environment, prepare)

    subprocess_handler.Popen = Forked  # type: ignore[misc]


def _be_rank(words: list[str], environment: dict[str, str], prepare: Prepare) -> None:
    code = 1
    try:
        os.setsid()
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(environment)
        prepare(int(environment["RANK"]))
        command(words[words.index("gptkit") + 1 :])
    finally:
        os._exit(code)
