"""A command line of gptkit, run inside the test: what it printed, how it ended, and what is wrong with a refusal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

from gptkit.cli.main import main

LONGEST_LINE = 3000  # an error quotes what was found, never all of it
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def error(self) -> dict[str, str]:
        """The object under "error" that --json printed."""
        shown: dict[str, str] = json.loads(self.out)["error"]
        return shown


def gptkit(*arguments: object) -> Ended:
    """Run a command line; its streams are kept as bytes would be, escapes where UTF-8 has no bytes."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    began = time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _handlers_kept():
        code = main([str(one) for one in arguments])
    seconds = time.monotonic() - began
    return Ended(code, *(one.buffer.getvalue().decode() for one in (out, err)), seconds)  # type: ignore[attr-defined]


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    before, folder = signal.getsignal(signal.SIGTERM), os.getcwd()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        os.chdir(folder)


def complaints(ended: Ended, code: int = 2) -> list[str]:
    """Return what is wrong with a refusal: another exit code, more than one line, no place, no cure, control bytes."""
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    found = []
    if ended.code != code:
        found.append(f"exit code {ended.code}")
    if len(errors) != 1 or not ended.err.endswith(errors[0] + "\n"):
        found.append(f"{len(errors)} error lines")
    if "Traceback" in ended.err:
        found.append("a traceback")
    if CONTROL.search(ended.err):
        found.append("control characters")
    if errors and len(errors[0]) > LONGEST_LINE:
        found.append(f"a line of {len(errors[0])} characters")
    if errors and " - " not in errors[0]:
        found.append("no cure")
    return found
