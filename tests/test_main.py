"""How the process exits: exit handlers run, all output is flushed, and nothing else is waited for."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import atexit, sys, threading, time
from gptkit.cli import main as cli
from gptkit.__main__ import main

class Freed:
    def __del__(self):
        print("freed", file=sys.stderr)

def command(argv=None):
    sys.modules["sys"].kept = Freed()
    atexit.register(print, "closed", file=sys.stderr)
    threading.Thread(target=lambda: (time.sleep(0.2), print("joined", file=sys.stderr))).start()
    sys.stdout.write("a result that waits in the buffer")
    CODE

cli.main = command
main()
"""


@pytest.mark.parametrize(("end", "code"), [("return 0", 0), ("return 143", 143), ("raise SystemError", 1)])
def test_the_process_ends_when_all_is_closed_and_frees_nothing(end: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.replace("CODE", end)], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stdout == "a result that waits in the buffer"
    assert done.stderr.splitlines()[-2:] == ["joined", "closed"]
    assert ("SystemError" in done.stderr) == (end == "raise SystemError")


def test_nothing_is_collected_while_libraries_close() -> None:
    """A group of gloo freed there waits for its own thread, which waits for Python: one run in ten never ended."""
    code = "import gc; atexit.register(lambda: print(gc.isenabled(), file=sys.stderr)); return 0"
    done = subprocess.run([sys.executable, "-c", SCRIPT.replace("CODE", code)], capture_output=True, text=True)
    assert "False" in done.stderr.splitlines()


def test_the_module_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "gptkit", "pretrain", "--stesp"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown flag '--stesp'")
