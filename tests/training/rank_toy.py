"""A rank that imports nothing heavy: it does what its first argument says, and what gptkit does for its launcher."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from gptkit.errors import Interrupted, OtherRankFailed, UsageError
from gptkit.system import ranks

SHOWN = ("OMP_NUM_THREADS", "ACCELERATE_USE_FSDP", "FSDP_VERSION")


def commit(number: int, frame: object) -> None:
    """Do at a signal what a training rank does, and take a moment for it."""
    time.sleep(0.5)
    ranks.report_error(Interrupted("stopped", signal_number=number, where="step 3 of 9", fix="go on"))
    sys.exit(128 + number)


def main() -> int:
    world, deed = ranks.world(), sys.argv[1]
    assert world is not None
    ranks.end_with_launcher(world.launcher)
    if deed == "done":
        ranks.report_result({"rank": world.rank, **{name: os.environ.get(name) for name in SHOWN}})
        return 0
    if deed == "commit":
        signal.signal(signal.SIGTERM, commit)
        signal.signal(signal.SIGINT, commit)
    if deed in ("wait", "commit") or (world.rank == 0 and deed != "collateral"):
        Path(f"waiting-{world.rank}").write_text("yes")
        time.sleep(300)
    if world.rank == 0:
        ranks.report_error(OtherRankFailed("because of rank 1"))
        return 1
    if deed == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "silent":
        return 7
    if deed == "collateral":
        time.sleep(0.5)
    ranks.report_error(UsageError("of rank 1", where="--some-flag"))
    return 2


sys.exit(main())
