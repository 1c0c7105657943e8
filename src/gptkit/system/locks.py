"""Opening the lock files of runs and of the cache so that the members of a group can share them."""

from __future__ import annotations

import os
from pathlib import Path


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
