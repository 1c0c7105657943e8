"""Processes of one run watch each other: one that was stopped (SIGSTOP) would keep all others waiting for hours.

A process that dies is noticed at once, by its launcher and by those that wait for it. One that is stopped answers
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

STALL_SECONDS = 20.0  # that a process may be stopped
POLL_SECONDS = 1.0


def watch_next_rank(accelerator: Accelerator) -> None:
    """Start a thread that ends the process of the next rank if that stalls; every process must call this."""
    here = psutil.Process()
    places = gather_object([(socket.gethostname(), here.pid, here.create_time())])
    rank = (accelerator.process_index + 1) % accelerator.num_processes
    host, pid, created = places[rank]
    with contextlib.suppress(psutil.Error):
        neighbour = psutil.Process(pid)
        if host == socket.gethostname() and neighbour.create_time() == created:
            threading.Thread(target=_watch, args=(rank, neighbour), daemon=True).start()


def _watch(rank: int, process: psutil.Process) -> None:
    moved = time.monotonic()
    with contextlib.suppress(psutil.Error):
        while process.is_running():
            if process.status() != psutil.STATUS_STOPPED:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALL_SECONDS:
                _end(rank, process)
                return
            time.sleep(POLL_SECONDS)


def _end(rank: int, process: psutil.Process) -> None:
    """Report for the process what happened to it, and kill it: so all others learn of it."""
    message = f"process {rank} was stopped and did not go on for {STALL_SECONDS:.0f} s"
    error = OutOfResources(message, where=f"pid {process.pid}", fix=AGAIN)
    if not ranks.report_error(error, rank=rank):
        print(f"error: {error}", file=sys.stderr, flush=True)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
