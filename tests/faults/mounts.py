"""Disks of a child's own: a small one, a read-only one. They are seen by the child and what it starts alone.

An ordinary user may mount in a user namespace of his own, where the kernel lets him; `Refused` where it does not.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
REFUSED = 77  # exit code of a child that may not mount


class Refused(Exception):
    """This machine lets nobody mount."""


def own_mounts() -> None:
    """Have this process's mounts be its own; raises Refused."""
    user, group = os.getuid(), os.getgid()
    if user == 0:
        _call("unshare", CLONE_NEWNS)
    else:
        _call("unshare", CLONE_NEWNS | CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)


def mount_small_disk(folder: Path, size: int) -> None:
    _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode())


def mount_read_only(folder: Path) -> None:
    name = os.fsencode(folder)
    _call("mount", name, name, None, MS_BIND, None)
    _call("mount", name, name, None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise Refused(f"{name}: {os.strerror(ctypes.get_errno())}")


def forked(work: Callable[..., object], *arguments: object) -> int:
    """Run `work` in a child of this process and return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            work(*arguments)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
