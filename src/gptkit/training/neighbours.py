"""Processes of one run look after each other: one that was stopped (SIGSTOP) would keep all others waiting for hours.

A process that dies is noticed at once, by its launcher and by those that wait for it. One that stands still answers
nobody, not even its launcher's request to end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time

import psutil
from accelerate import Accelerator
from accelerate.utils import gather_object

from gptkit.errors import AGAIN, OutOfResources
from gptkit.system import ranks

PATIENCE = 20.0  # seconds that a process may stand still
LOOK = 1.0  # seconds between two looks


def look_after_next(accelerator: Accelerator) -> None:
    """Have a thread end the process of the next rank, if that stands still; every process must call this."""
    here = psutil.Process()
    places = gather_object([(socket.gethostname(), here.pid, here.create_time())])
    rank = (accelerator.process_index + 1) % accelerator.num_processes
    host, pid, created = places[rank]
    with contextlib.suppress(psutil.Error):
        neighbour = psutil.Process(pid)
        if host == socket.gethostname() and neighbour.create_time() == created:
            threading.Thread(target=_look_after, args=(rank, neighbour), daemon=True).start()


def _look_after(rank: int, process: psutil.Process) -> None:
    moved = time.monotonic()
    with contextlib.suppress(psutil.Error):
        while process.is_running():
            if process.status() != psutil.STATUS_STOPPED:
                moved = time.monotonic()
            elif time.monotonic() - moved > PATIENCE:
                _end(rank, process)
                return
            time.sleep(LOOK)


def _end(rank: int, process: psutil.Process) -> None:
    """Say for the process what happened to it, and kill it: so all others learn of it."""
    message = f"process {rank} was stopped and did not go on for {PATIENCE:.0f} s"
    error = OutOfResources(message, where=f"pid {process.pid}", fix=AGAIN)
    if not ranks.hand_over_error(error, of_rank=str(rank)):
        print(f"error: {error}", file=sys.stderr, flush=True)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
