"""Finding files as their authors name them: in a folder or in one of its folders, in any case."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from gptkit.errors import InputError, UsageError

FileSet = tuple[str, ...]  # files that belong together; * stands for anything, / parts folders, or ends a folder's name


def find_files(evaluation: str, data: str | None, sets: Sequence[FileSet], *, source: str) -> list[Path]:
    """Return the files of the first set that is whole in DATA or in DATA/<evaluation>, in any case.

    DATA may be the file itself where a set is a single one. UsageError without DATA, InputError when it holds no set;
    `source` says in its fix where the files come from.
    """
    wanted = "; ".join(dict.fromkeys(" + ".join(names) for names in sets))
    fix = f"give --data DIR, a folder of {wanted} ({source})"
    if data is None:
        raise UsageError(f"{evaluation} needs its data", where="--data", fix=fix)
    if data.startswith("hf:"):
        raise UsageError(f"{evaluation} is read from its authors' files, not from the hub", where="--data", fix=fix)
    folder = Path(data).expanduser()
    if folder.is_file() and any(len(names) == 1 for names in sets):
        return [folder]
    require_folder(folder, f"the folder of {wanted} ({source})")
    found = first_whole(roots(folder, (evaluation,)), sets)
    if found is None:
        raise not_found(f"no file of {evaluation}", folder, wanted, evaluation)
    return found[1]


def require_folder(path: Path, what: str = "the folder of the task's files") -> None:
    """Raise InputError, whose fix names `what`, where --data is no folder."""
    if not path.is_dir():
        problem = "not a folder" if path.exists() else "no such file or folder"
        raise InputError(problem, where=f"--data {path}", fix=f"name {what}")


def first_whole(folders: Iterable[Path], sets: Sequence[FileSet]) -> tuple[int, list[Path]] | None:
    """Return the number and the files of the first set that is whole in the first of the folders, None without any."""
    for folder in folders:
        for number, names in enumerate(sets):
            paths = [path for name in names if (path := find(folder, name)) is not None]
            if len(paths) == len(names):
                return number, paths
    return None


def roots(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the folder and those inside that bear one of the names: STS-B is stsb, CoLA cola."""
    wanted = {_plain(name) for name in names}
    return [folder, *(path for path in entries(folder) if _plain(path.name) in wanted and path.is_dir())]


def find(root: Path, pattern: str) -> Path | None:
    """Return the file, or for NAME/ the folder, that a path with * stands for, in any case; an exact name comes first.

    InputError where the path stands for two.
    """
    found = root
    for part in Path(pattern).parts:
        if os.path.exists(found / part):
            found = found / part
            continue
        similar = [path for path in entries(found) if fnmatch.fnmatchcase(path.name.lower(), part.lower())]
        if not similar:
            return None
        if len(similar) > 1:
            names = " and ".join(path.name for path in similar[:2])
            raise InputError(f"{names} both could be {part}", where=str(found), fix="keep one of them")
        [found] = similar
    return found if found.is_dir() == pattern.endswith("/") else None


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, by name; nothing for what is none."""
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        fix = "check its permissions"
        raise InputError(f"the folder cannot be read: {error.strerror}", where=str(folder), fix=fix) from None


def not_found(what: str, folder: Path, looked_for: str, name: str) -> InputError:
    """Return the error that lists what was looked for and what is there instead."""
    there = ", ".join(path.name + "/" * path.is_dir() for path in entries(folder)[:8]) or "nothing"
    fix = f"looked for {looked_for} there and in {name}/ (any case); found {there}"
    return InputError(what, where=f"--data {folder}", fix=fix)


def _plain(name: str) -> str:
    return re.sub(r"[-_. ]", "", name.lower())
