"""What a power cut could lose: the order in which a run's files were written, synced and vouched for."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path


def too_early(trace: Sequence[str], written_by_libraries: Sequence[str] = ()) -> list[str]:
    """Return what a manifest, a removal or the result vouched for although a power cut could still have lost it."""
    volatile: set[str] = set(written_by_libraries)  # contents
    nameless: set[str] = set()  # names in directories that were not synced since
    faults: list[str] = []

    def need(what: str, *begin: str) -> None:
        faults.extend(f"{what}: content of {one}" for one in volatile if one.startswith(begin))
        faults.extend(f"{what}: name of {one}" for one in nameless - {f"{what}.tmp"} if one.startswith(begin))

    known: set[str] = set()
    for kind, path in (line.split(" ", 1) for line in trace):
        if kind == "sync" and (path == "" or path.endswith("/")):
            nameless -= {one for one in nameless if os.path.dirname(one) == path.rstrip("/")}
        elif kind == "sync":
            volatile.discard(path)
        elif kind == "rename" and path.endswith("MANIFEST.json"):
            need(path, os.path.dirname(path) + "/", "metrics.jsonl")
        elif kind == "rename" and "removed-" in path:
            need(path, "checkpoints")
        elif kind == "rename" and path == "result.json":
            need(path, "")
        if kind in ("open", "mkdir", "rename") and path not in known and path != "run.lock":
            nameless.add(path)
            known.add(path)
        if kind in ("write", "open") and path != "run.lock" and (kind == "write" or path not in known):
            volatile.add(path)
        if kind == "rename":
            volatile.discard(f"{path}.tmp")
            nameless.discard(f"{path}.tmp")
        if kind in ("remove", "rmdir"):
            volatile.discard(path)
            nameless.discard(path)
            known.discard(path)
    return faults


# Of Linux, as strace names them: which becomes which kind of an effect.
CALLS = {
    "openat": "open",
    "creat": "open",
    "mkdir": "mkdir",
    "mkdirat": "mkdir",
    "write": "write",
    "pwrite64": "write",
    "writev": "write",
    "ftruncate": "write",
    "fsync": "sync",
    "fdatasync": "sync",
    "rename": "rename",
    "renameat": "rename",
    "renameat2": "rename",
    "unlink": "remove",
    "unlinkat": "remove",
    "rmdir": "rmdir",
}
CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (\d+)")


def may_trace() -> bool:
    """Say whether strace may look at a process here; containers often forbid it."""
    return not subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, check=False).returncode


def system_calls(trace: str, run: Path) -> list[str]:
    """Return the calls of `strace -f -y -s 0` that succeeded below `run` as effects, `kind path`.

    A file is called by the name that it gets in the end, but for what becomes of `name.tmp`.
    """
    found: list[tuple[str, str]] = []
    folders = {str(run)}
    for name, arguments, _ in (match.groups() for match in map(CALL.match, trace.splitlines()) if match):
        kind, paths = CALLS[name], _paths(arguments)
        if kind == "open" and not re.search("O_WRONLY|O_RDWR|O_CREAT", arguments):
            continue
        if not paths or not f"{paths[-1]}/".startswith(f"{run}/") or (kind, paths[-1]) == ("mkdir", str(run)):
            continue
        path = paths[-1]
        if kind == "mkdir":
            folders.add(path)
        if kind == "rename" and paths[0] not in (f"{path}.tmp", *folders):
            found = [(before, path if one == paths[0] else one) for before, one in found]
        found.append((kind, f"{path}/" if kind == "sync" and path in folders else path))
    return [f"{kind} {path.removeprefix(f'{run}/')}" for kind, path in found]


def _paths(arguments: str) -> list[str]:
    """Return the absolute paths that a call names: descriptors, names, and names below a descriptor's folder."""
    names = re.findall(r'(?:\d+|AT_FDCWD)<([^>]*)>(?:, "([^"]+)")?|"([^"]+)"', arguments)
    return [os.path.join(folder, below) if below else folder or alone for folder, below, alone in names]
