"""Finding files as their authors name them: in a folder or in one of its folders, in any case."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable
from pathlib import Path

from gptkit.errors import InputError


def existing_folder(folder: str | Path) -> Path:
    """Return the folder that --data names; InputError where there is none."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        problem = "not a folder" if path.exists() else "no such folder"
        raise InputError(problem, where=f"--data {path}", fix="name the folder of the task's files")
    return path


def roots(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the folder and those inside that bear one of the names: STS-B is stsb, CoLA cola."""
    wanted = {_plain(name) for name in names}
    return [folder, *(one for one in entries(folder) if _plain(one.name) in wanted and one.is_dir())]


def find(root: Path, pattern: str, *, folder: bool = False) -> Path | None:
    """Return the file (or the folder) that a path with * stands for, in any case; an exact name comes first.

    InputError where the path stands for two.
    """
    found = root
    for part in Path(pattern).parts:
        if os.path.exists(found / part):
            found = found / part
            continue
        similar = [one for one in entries(found) if fnmatch.fnmatchcase(one.name.lower(), part.lower())]
        if not similar:
            return None
        if len(similar) > 1:
            names = " and ".join(one.name for one in similar[:2])
            raise InputError(f"{names} both could be {part}", where=str(found), fix="keep one of them")
        [found] = similar
    return found if found.is_dir() == folder else None


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, by name; nothing for what is none."""
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        fix = "check its permissions"
        raise InputError(f"the folder cannot be read: {error.strerror}", where=str(folder), fix=fix) from None


def not_found(what: str, folder: Path, looked_for: str, name: str) -> InputError:
    """Return the error that lists what was looked for and what is there instead."""
    there = ", ".join(one.name + "/" * one.is_dir() for one in entries(folder)[:8]) or "nothing"
    fix = f"looked for {looked_for} there and in {name}/ (any case); found {there}"
    return InputError(what, where=f"--data {folder}", fix=fix)


def _plain(name: str) -> str:
    return re.sub(r"[-_. ]", "", name.lower())
