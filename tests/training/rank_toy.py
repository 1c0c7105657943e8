"""A rank that imports nothing heavy: it does what its first argument says, and what gptkit does for its launcher."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from gptkit import ranks
from gptkit.errors import OtherRankFailed, UsageError


def main() -> int:
    world, deed = ranks.world(), sys.argv[1]
    assert world is not None
    ranks.end_with_launcher(world.launcher)
    if deed == "done":
        ranks.hand_over_result({"rank": world.rank, "threads": os.environ["OMP_NUM_THREADS"]})
        return 0
    if deed == "wait" or (world.rank == 0 and deed != "collateral"):
        Path(f"waiting-{world.rank}").write_text("yes")
        time.sleep(300)
    if world.rank == 0:
        ranks.hand_over_error(OtherRankFailed("because of rank 1"))
        return 1
    if deed == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "silent":
        return 7
    if deed == "collateral":
        time.sleep(0.5)
    ranks.hand_over_error(UsageError("of rank 1", where="--some-flag"))
    return 2


sys.exit(main())
