"""Lock files that the members of a group share: one process a run directory, one builder of a cached file.

The kernel holds the locks, and frees them however their holder ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from gptkit.errors import InputError

LOCK = "run.lock"


def open_lock_file(path: Path) -> int:
    """Return a descriptor of a lock file, which is created with the mode that the umask gives.

    Another user's that we may only read is opened read-only: enough for flock(2), except over NFS.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY)


class RunLock:
    """The lock of a run directory, held from construction to `release`, or to the end of the process.

    Raises InputError naming the holder when another process has it.
    """

    def __init__(self, directory: Path) -> None:
        from filelock import lock_descriptor

        path = directory / LOCK
        self.descriptor = open_lock_file(path)
        try:
            is_held = lock_descriptor(self.descriptor, blocking=False)
        except OSError as error:
            self.release()
            error.filename = str(path)
            raise
        if not is_held:
            self.release()
            holder = ""
            with contextlib.suppress(OSError):  # Windows locks the note against reading as well
                holder = path.read_text().strip()
            message = f"the run is in use by {holder or 'another process'}"
            raise InputError(message, where=str(directory), fix="wait for it, or choose another --out")
        with contextlib.suppress(OSError):  # a read-only file: it is locked, but its note names an earlier holder
            os.ftruncate(self.descriptor, 0)
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            os.write(self.descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def release(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
