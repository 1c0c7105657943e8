"""Paths, directories and globs become a sorted list of text files without duplicates."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptkit.errors import InputError
from gptkit.text.readers import KINDS, reader_of


@dataclass(frozen=True)
class FoundFile:
    """A text file; `named` when the user named it, not a directory or glob that holds it."""

    path: Path
    named: bool


def find_files(arguments: Sequence[str]) -> tuple[list[FoundFile], list[str]]:
    """Return the text files that the arguments stand for, sorted by real path, and notes on what was skipped.

    Directories are searched recursively, following links and skipping hidden names. A file reached twice, also through
    a link, counts once.
    """
    found: dict[str, FoundFile] = {}
    passed_over: Counter[str] = Counter()
    for argument in arguments:
        for file in sorted(_expand(argument, passed_over), key=lambda file: str(file.path)):
            identity = os.path.realpath(file.path)
            if identity not in found or (file.named and not found[identity].named):
                found[identity] = file
    notes = [f"passed over {count} {suffix} file(s): gptkit reads {KINDS}" for suffix, count in passed_over.items()]
    return [file for _, file in sorted(found.items())], notes


def absolute(argument: str) -> str:
    """Return an argument (path or glob) that means the same in any working directory."""
    return os.path.abspath(os.path.expanduser(argument))


def _expand(argument: str, passed_over: Counter[str]) -> list[FoundFile]:
    where = absolute(argument)
    if "\0" in argument or not argument.strip():
        raise InputError(f"not a path: {argument!r}", where="DATA", fix="name a file, a directory or a glob")
    if os.path.isdir(where):
        return _usable(where, _walk(where), passed_over)
    if os.path.lexists(where):
        return [FoundFile(Path(where), named=True)]
    if not glob.has_magic(where):
        raise InputError("file not found", where=where, fix=f"check the path; a hub data set is written hf:{argument}")
    matches = sorted(glob.glob(where, recursive=True))
    if not matches:
        raise InputError("no file matches this glob", where=where, fix="check the pattern")
    directories = [match for match in matches if os.path.isdir(match)]
    inside = [path for directory in directories for path in _walk(directory)]
    return _usable(where, [match for match in matches if match not in set(directories)] + inside, passed_over)


def _usable(where: str, paths: Iterable[str], passed_over: Counter[str]) -> list[FoundFile]:
    files = []
    for path in map(Path, paths):
        if reader_of(path):
            files.append(FoundFile(path, named=False))
        else:
            passed_over[path.suffix or "suffixless"] += 1
    if not files:
        raise InputError("no text file here", where=where, fix=f"gptkit reads {KINDS}")
    return files


def _walk(directory: str) -> Iterator[str]:
    """Yield the visible files below a directory, each directory entered once however links lead to it."""
    entered = set()
    for folder, subfolders, names in os.walk(directory, followlinks=True, onerror=_refuse):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            subfolders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (os.path.join(folder, name) for name in sorted(names) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise InputError(f"directory cannot be read: {error.strerror}", where=error.filename, fix="check its permissions")
