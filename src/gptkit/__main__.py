"""Entry point of `gptkit` and of `python -m gptkit`, which launchers use."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys


def main() -> None:
    """Run the command line and exit with its code right after the exit handlers of the libraries have run."""
    code = 1  # if `cli.main` does not return
    # Registered before the libraries' handlers, this one runs last. Without it the interpreter would spend seconds
    # freeing some hundred thousand objects of torch and transformers one by one.
    atexit.register(lambda: _leave(code))
    from gptkit.cli import main as cli

    code = cli.main()
    gc.disable()  # freeing a process group at exit may deadlock with its own thread, which waits for Python
    sys.exit(code)


def _leave(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
