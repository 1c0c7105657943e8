"""The program: `gptkit`, and `python -m gptkit` for launchers, which start modules."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys


def main() -> None:
    """Run the command line and end the process with its exit code, as soon as all that asked for it is closed."""
    code = 1  # of an exit that `cli.main` does not return from
    # Registered before the libraries register theirs, this runs last. The interpreter would go on to free some
    # hundred thousand objects of torch and transformers one by one, for seconds.
    atexit.register(lambda: _leave(code))
    from gptkit.cli import main as cli

    code = cli.main()
    gc.disable()  # freeing a process group at exit may wait for ever, for a thread of its own that waits for Python
    sys.exit(code)


def _leave(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
