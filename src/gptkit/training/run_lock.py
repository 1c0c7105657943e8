"""One process a run directory: `run.lock` is locked by the kernel, which frees it however its holder ends."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path

from gptkit.errors import InputError
from gptkit.system.locks import open_lock_file

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # Windows locks bytes against reading: lock one that nobody reads
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError from None
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOCK = "run.lock"


class RunLock:
    """Held from construction to `release`, or to the end of the process.

    Raises InputError naming the holder when another process has it.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOCK
        self.descriptor = open_lock_file(self.path)
        try:
            _lock(self.descriptor)
        except BlockingIOError:
            self.release()
            holder = self.path.read_text().strip() or "another process"
            raise InputError(
                f"the run is in use by {holder}", where=str(directory), fix="wait for it, or choose another --out"
            ) from None
        except OSError as error:
            self.release()
            error.filename = str(self.path)
            raise
        with contextlib.suppress(OSError):  # a read-only file: it is locked, but its note names an earlier holder
            os.ftruncate(self.descriptor, 0)
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            os.write(self.descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def release(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
