"""Every effect of a child on the files below a folder, in order, so that a trial can act before the k-th of them.

Seen are opening for writing, making, renaming and removing (the interpreter's audit events), each write of a run's own
files, and each fsync. What a library writes through a file it opened counts as its opening.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from children import command

NAMED = {"os.mkdir": "mkdir", "os.remove": "remove", "os.rmdir": "rmdir"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
TRACE = "trace"  # the file beside a run
TAKING_SPACE = ("open", "mkdir", "write", "sync")

Act = Callable[[int, str, str], None]  # number (from 1), kind, path


def watch(root: Path, act: Act) -> None:
    """Call `act` before every effect on files below `root`, from now on."""
    from gptkit.system import files

    number = 0
    write, fsync = files.write, os.fsync

    def seen(kind: str, path: str) -> None:
        nonlocal number
        if not path.startswith(f"{root}/"):
            return
        number += 1
        act(number, kind, path)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            if isinstance(arguments[0], str | os.PathLike):
                seen("open", os.fspath(arguments[0]))
        elif event == "os.rename":
            seen("rename", _whole(arguments[1], -1))  # to this name
        elif event in NAMED:
            seen(NAMED[event], _whole(arguments[0], arguments[1] if event != "os.mkdir" else -1))

    def noted_write(handle: BinaryIO, chunk: bytes | memoryview) -> None:
        half = len(memoryview(chunk)) // 2
        write(handle, memoryview(chunk)[:half])  # an end before the rest tears the chunk
        seen("write", str(handle.name))
        write(handle, memoryview(chunk)[half:])

    def noted_fsync(descriptor: int) -> None:
        seen("sync", f"{os.readlink(f'/proc/self/fd/{descriptor}')}{'/' if _is_directory(descriptor) else ''}")
        fsync(descriptor)

    files.write = noted_write
    os.fsync = noted_fsync
    sys.addaudithook(hook)


def _whole(path: Any, folder: int) -> str:
    name = os.fsdecode(path)
    return f"{os.readlink(f'/proc/self/fd/{folder}')}/{name}" if folder >= 0 else name


def _is_directory(descriptor: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{descriptor}")


def spread(chance: random.Random, total: int, wanted: int) -> list[int]:
    """Return turns from 1 to `total`, one drawn from each of `wanted` equal parts; all where there are no more."""
    if wanted >= total:
        return list(range(1, total + 1))
    edges = [total * part // wanted for part in range(wanted + 1)]
    return [chance.randint(first + 1, last) for first, last in itertools.pairwise(edges)]


def recorded(words: list[str], root: Path, trace: Path) -> NoReturn:
    """Be gptkit, noting each effect as a line `kind path`."""
    file = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    watch(root, lambda _, kind, path: os.write(file, f"{kind} {path.removeprefix(f'{root}/')}\n".encode()) and None)
    command(words)


def effects_of(run: Path) -> list[str]:
    """Return the effects of an uninterrupted run, each as `kind path`; a directory's path ends in a stroke."""
    return (run.parent / TRACE).read_text().splitlines()


def killed_at(words: list[str], root: Path, turn: int) -> NoReturn:
    """Be gptkit, gone before the `turn`-th effect."""

    def act(number: int, kind: str, path: str) -> None:
        if number == turn:
            os._exit(137)

    watch(root, act)
    command(words)


def vanishing_at(words: list[str], root: Path, turn: int) -> NoReturn:
    """Be gptkit, whose folder somebody removes before the `turn`-th effect."""
    removed = False

    def act(number: int, kind: str, path: str) -> None:
        nonlocal removed
        if number == turn and not removed:
            removed = True
            shutil.rmtree(root)

    watch(root, act)
    command(words)


def full_from(words: list[str], root: Path, turn: int) -> NoReturn:
    """Be gptkit on a disk that has no space left from the `turn`-th effect on."""

    def act(number: int, kind: str, path: str) -> None:
        if number >= turn and kind in TAKING_SPACE and not (kind == "open" and os.path.isdir(path)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    watch(root, act)
    command(words)
