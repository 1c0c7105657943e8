"""The on-disk cache: files that are complete or absent, each vouched for by a small JSON file.

    NAME        the data, named by the hash of everything that determines it; written as NAME.tmp
    NAME.json   {"size", "sha256", ...}, written last: if it is missing or disagrees, NAME is built again
    NAME.lock   locked by the one process that builds NAME; the kernel frees it when that process dies

The sha256 is checked on every use: nothing else reveals a flipped bit, and hashing is cheap next to tokenizing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gptkit.errors import GptkitError, InputError, OutOfResources
from gptkit.system.files import NO_SPACE, HashedFile, open_lock_file, replacing, write_atomically


def cache_directory() -> Path:
    """Return GPTKIT_CACHE if set, else $XDG_CACHE_HOME/gptkit, else ~/.cache/gptkit."""
    chosen = os.environ.get("GPTKIT_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "gptkit"


def cache_path(kind: str, suffix: str, *key: object) -> Path:
    """Return the path of a cached file of some `kind`; `key` is everything that determines its content."""
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    return cache_directory() / kind / f"{name}{suffix}"


def cached_json(path: Path, make: Callable[[], Any]) -> Any:
    """Return the JSON value cached in `path`, calling `make` if there is none; errors are those of `cached_file`."""

    def write(file: HashedFile) -> dict[str, Any]:
        file.write(json.dumps(make()).encode())
        return {}

    cached_file(path, write)
    return json.loads(path.read_bytes())


def cached_file(
    path: Path,
    write: Callable[[HashedFile], dict[str, Any]],
    *,
    need: Callable[[HashedFile], int] = lambda file: file.size,
) -> dict[str, Any]:
    """Make sure that `path` is whole, calling `write` if it is not, and return the metadata that `write` returned.

    If the disk is full, raise OutOfResources with the size of the whole file as `need` estimates it, and leave nothing
    behind. An unusable cache directory is an InputError.
    """
    return cached_files([path], lambda files: [write(files[0])], need=lambda files: need(files[0]))[0]


def cached_files(
    paths: Sequence[Path],
    write: Callable[[list[HashedFile]], list[dict[str, Any]]],
    *,
    need: Callable[[list[HashedFile]], int],
) -> list[dict[str, Any]]:
    """Like `cached_file` for files that are built together: unless all of them are whole, rebuild all."""
    if found := _all_verified(paths):
        return found
    files: list[HashedFile] = []
    try:
        with contextlib.ExitStack() as stack:
            for path in sorted(paths):  # always in the same order, so that no two processes wait for each other
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_sole_builder(path))
            if found := _all_verified(paths):  # another process may have built them meanwhile
                return found
            with contextlib.ExitStack() as unfinished:
                files += [unfinished.enter_context(replacing(path)) for path in paths]
                facts = write(files)
            facts = [
                {**fact, "size": file.size, "sha256": file.sha256} for fact, file in zip(facts, files, strict=True)
            ]
            for path, fact in zip(paths, facts, strict=True):
                write_atomically(path.with_name(path.name + ".json"), json.dumps(fact, sort_keys=True))
            return facts
    except OSError as error:
        raise _unusable(paths[0], error, need(files) if files else None) from error


def _all_verified(paths: Sequence[Path]) -> list[dict[str, Any]] | None:
    found = [facts for path in paths if (facts := verified_facts(path)) is not None]
    return found if len(found) == len(paths) else None


def verified_facts(path: Path) -> dict[str, Any] | None:
    """Return the metadata of a cached file, or None if it is missing, truncated or changed."""
    try:
        facts = json.loads(path.with_name(path.name + ".json").read_bytes())
        if path.stat().st_size != facts["size"]:
            return None
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return facts if sha256 == facts["sha256"] else None


@contextlib.contextmanager
def _sole_builder(path: Path) -> Iterator[None]:
    """Wait until no other process is building `path`, and keep others out meanwhile."""
    from filelock import lock_descriptor

    lock = path.with_name(path.name + ".lock")
    while True:
        descriptor = open_lock_file(lock)
        try:
            lock_descriptor(descriptor)
            if not _is_current(lock, descriptor):
                continue  # the previous builder removed this lock file; another process may hold a new one
            try:
                yield
            finally:
                with contextlib.suppress(PermissionError):  # another user's lock file in a sticky directory
                    lock.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


def _is_current(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _unusable(path: Path, error: OSError, need: int | None) -> GptkitError:
    directory = path.parent
    if error.errno not in NO_SPACE:
        message = f"the cache cannot be used: {error.strerror or error}"
        return InputError(message, where=str(directory), fix="set GPTKIT_CACHE to a directory that you can write")
    needs = f": needs about {megabytes(need)}" if need else ""
    with contextlib.suppress(OSError):
        needs += f", {megabytes(shutil.disk_usage(directory).free)} free"
    message = f"no space left for the cache{needs}"
    return OutOfResources(message, where=str(path), fix="free space, or set GPTKIT_CACHE to a larger disk")


def megabytes(size: int) -> str:
    """Format a number of bytes: 12 kB, 3.4 MB, 1,234 MB."""
    if size < 10**6:
        return f"{max(1, round(size / 1000))} kB"
    return f"{size / 10**6:.1f} MB" if size < 10**8 else f"{size / 10**6:,.0f} MB"
