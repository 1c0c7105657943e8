"""One rank of a multi-process run: what a launcher put in its environment, and what it reports to gptkit's launcher.

gptkit's launcher speaks for its ranks, so that users see one result or one error. Ranks write them to its folder.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gptkit.errors import GptkitError, OtherRankFailed, Reported

FOLDER = "GPTKIT_LAUNCH"  # environment variable of the ranks: the launcher's process id and the folder for reports
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION")  # any launcher sets one of these
RESULT, RUN, ERRORS = "result.json", "run", "error-*.json"
PR_SET_PDEATHSIG = 1
COLLATERAL_SECONDS = 5.0  # the longest that an error caused by another rank waits for that rank's own


class World(NamedTuple):
    """This process's rank among `size`; `launcher` is the process id of gptkit's launcher, None under another."""

    rank: int
    size: int
    launcher: int | None = None


def world(environment: Mapping[str, str] = os.environ) -> World | None:
    """Return the rank that a launcher gave this process, None if no launcher started it."""
    if not any(name in environment for name in LAUNCHED):
        return None
    launcher = int(environment[FOLDER].partition(":")[0]) if FOLDER in environment else None
    return World(int(environment.get("RANK") or 0), int(environment.get("WORLD_SIZE") or 1), launcher)


def is_unconnected(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether accelerate launch was configured for several processes but started this one without the others."""
    return {"ACCELERATE_USE_CPU", "MASTER_PORT"} <= environment.keys() and "WORLD_SIZE" not in environment


def launcher_environment(folder: Path) -> dict[str, str]:
    """Return the environment variables that make this process the launcher of its ranks."""
    return {FOLDER: f"{os.getpid()}:{folder}"}


def _folder() -> Path | None:
    return Path(os.environ[FOLDER].partition(":")[2]) if FOLDER in os.environ else None


def report_result(result: Mapping[str, Any]) -> bool:
    """Report rank 0's result to the launcher; return whether gptkit launched this rank."""
    folder = _folder()
    if folder is not None and os.environ.get("RANK") == "0":
        (folder / RESULT).write_text(json.dumps(result))
    return folder is not None


def report_run(directory: Path) -> None:
    """Report the run directory to the launcher, if gptkit launched this rank; only the first one counts."""
    folder = _folder()
    if folder is not None and not (folder / RUN).exists():
        (folder / RUN).write_text(str(directory), encoding="utf-8")


def report_error(error: GptkitError, *, rank: int | None = None) -> bool:
    """Report an error, of this rank or another, to the launcher; return False if there is none, or writing fails."""
    folder = _folder()
    if folder is None:
        return False
    is_collateral, deadline = isinstance(error, OtherRankFailed), time.monotonic() + COLLATERAL_SECONDS
    while is_collateral and not any(folder.glob(ERRORS)) and time.monotonic() < deadline:
        time.sleep(0.05)  # the launcher ends all ranks as soon as one ends
    record = {"time": time.time(), "is_collateral": is_collateral, **error.as_json()}
    path = folder / f"error-{os.environ.get('RANK', '0') if rank is None else rank}.json"
    try:
        path.with_suffix(".tmp").write_text(json.dumps(record))
        path.with_suffix(".tmp").rename(path)  # this process may be killed at any time
    except OSError:
        return False
    return True


class RankError(NamedTuple):
    """An error that a rank reported, and when; a collateral one was caused by another rank's."""

    is_collateral: bool
    time: float
    rank: int
    error: Reported


def errors_in(folder: Path) -> list[RankError]:
    """Return the errors that ranks reported, the root cause first."""
    found = []
    for path in folder.glob(ERRORS):
        content, rank = json.loads(path.read_text()), int(path.stem.partition("-")[2])
        found.append(RankError(content["is_collateral"], content["time"], rank, Reported(**content["error"])))
    return sorted(found)


def end_with_launcher(launcher: int | None) -> None:
    """Arrange for SIGTERM to this process when the process that started it ends, however that happens."""
    if sys.platform == "win32":
        return
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != (launcher or parent):  # it had already ended
        os.kill(os.getpid(), signal.SIGTERM)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
