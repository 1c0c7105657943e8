"""The file beside a resource whose kernel lock says that a process has it; a group's members can share one."""

from __future__ import annotations

import os
from pathlib import Path


def open_lock_file(path: Path) -> int:
    """Return a descriptor of a lock file, made with the mode that the umask gives.

    Another user's that may only be read is opened for reading: that is enough for flock(2), except over NFS.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY)
