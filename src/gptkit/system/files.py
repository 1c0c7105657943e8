"""Crash-safe files, and locks: every write, sync and rename of a run goes through the first six functions.

Tests make each of them fail in turn. Directories cannot be synced on Windows, where only the rename commits.

Lock files can be shared by a group of users: one process per run directory, one builder per cached file. The kernel
holds the locks, and frees them however their holder ends.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from gptkit.errors import InputError, OutOfResources, UsageError
from gptkit.system.run_layout import FileRecord

Chunk = bytes | memoryview
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
LOCK = "run.lock"
PATIENCE = 0.5  # seconds to wait for a lock that `lock_holder` may be looking at
DISCARDED = "removed-"  # prefix of directories being removed
LONGEST_NAME = 80  # bytes; file systems allow 255
IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


def write(handle: BinaryIO, chunk: Chunk) -> None:
    """Write a whole chunk to an unbuffered file; one system call may write only part of it."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[handle.write(rest) :]


def sync(descriptor: int) -> None:
    os.fsync(descriptor)


def rename(source: Path, target: Path) -> None:
    os.replace(source, target)


def make_directory(path: Path) -> None:
    path.mkdir()


def remove_file(path: Path) -> None:
    path.unlink(missing_ok=True)


def remove_directory(path: Path) -> None:
    """Remove a directory and everything in it; if it is a symbolic link, only the link."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)


def discard(path: Path) -> None:
    """Remove a directory of a run; an interrupted removal leaves nothing that looks like one."""
    removed = path.with_name(DISCARDED + path.name)
    rename(path, removed)
    remove_directory(removed)


def remove_discarded(directory: Path) -> None:
    """Finish removals that were interrupted."""
    for leftover in directory.glob(f"{DISCARDED}*"):
        remove_directory(leftover)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a directory that may be read; links are not followed."""
    total, left = 0, [path]
    with suppress(OSError):
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
    while left:
        with suppress(OSError), os.scandir(left.pop()) as entries:  # it may vanish meanwhile
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        left.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    if os.name == "nt":
        return
    _sync_path(path, os.O_RDONLY)


def _sync_path(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(path: Path) -> None:
    """Create a directory and its missing parents, and make each entry durable."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_directory(folder.parent)


def sync_all(directory: Path) -> None:
    """Sync everything below a directory, such as files that a library wrote."""
    for folder, _, names in os.walk(directory):
        for name in names:
            if Path(folder, name).is_file():  # anything else is not ours, and opening a FIFO would block
                _sync_path(Path(folder, name), os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        sync_directory(Path(folder))


class HashedFile:
    """A file being written: counts and hashes its bytes."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: Chunk) -> None:
        write(self._handle, chunk)
        self._hash.update(chunk)
        self.size += memoryview(chunk).nbytes

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def durable_file(path: Path) -> Iterator[HashedFile]:
    """Yield a new file to write, and sync it at the end."""
    with open(path, "xb", buffering=0) as handle:
        yield HashedFile(handle)
        sync(handle.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[HashedFile]:
    """Yield a new file that atomically replaces `path` at the end; on an error, remove it."""
    temporary = path.with_name(path.name + ".tmp")
    remove_file(temporary)
    try:
        with durable_file(temporary) as file:
            yield file
        rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            remove_file(temporary)
        raise
    sync_directory(path.parent)


def write_durably(path: Path, chunks: Iterable[Chunk]) -> FileRecord:
    """Write a new file, sync it, and return its size and hash."""
    with durable_file(path) as file:
        for chunk in chunks:
            file.write(chunk)
    return FileRecord(path.name, file.size, file.sha256)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file atomically: a reader, or a crash, sees either the old content or the new."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_report(path: Path, text: str) -> None:
    """Write to a path given by the user: replace a link's target atomically, but write into a pipe or device."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
    else:
        write_atomically(path.resolve(), text)


def is_plain_name(text: str) -> bool:
    """Return whether a name consists of letters, digits and emoji of any script, dots, dashes and underscores."""
    return text[:1] not in ("", *"._-") and all(map(_is_plain, text))


def plain_name(text: str) -> str:
    """Return text as a part of a file's name on any system: other characters become dashes, and it is cut to size."""
    words = "".join(char if _is_plain(char) else " " for char in unicodedata.normalize("NFC", text)).split()
    return "-".join(words).encode()[:LONGEST_NAME].decode(errors="ignore").strip("-.")


def _is_plain(char: str) -> bool:
    if char.isascii():
        return char.isalnum() or char in "._-"
    marks_and_emoji = unicodedata.category(char) in ("Mn", "Mc", "So", "Sk")
    return char.isalnum() or marks_and_emoji or char in "\u200c\u200d"  # joiners, which scripts and emoji need


def require_free(path: Path, where: str) -> None:
    """Raise UsageError if anything but an empty directory stands at `path`."""
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError("destination already exists", where=where, fix="choose a new directory")


def require_writable(path: Path, where: str) -> None:
    """Raise UsageError unless a file can be written to `path`, or replaced there."""
    folder, problem = path.resolve().parent, "it is a folder" if path.is_dir() else ""
    if not problem:
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            problem = str(error.strerror) if folder.is_dir() else "its folder does not exist"
    if problem:
        fix = "choose a file in a folder that exists and is writable"
        raise UsageError(f"{path} cannot be written: {problem}", where=where, fix=fix)


@contextmanager
def new_directory(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a new directory that atomically replaces `path` at the end; on an error, remove it.

    With `replace` false, for a path among the user's own files, it replaces nothing but an empty directory.
    """
    temporary = path.with_name(f"{path.name}.tmp" if replace else f".{path.name}.{os.getpid()}.tmp")
    if replace:
        _remove_any(temporary)
    make_directory(temporary)
    try:
        yield temporary
        sync_all(temporary)
        if replace:
            _remove_any(path)
        elif path.is_dir():
            path.rmdir()  # Windows does not rename onto a directory
        rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _remove_any(path: Path) -> None:
    if path.is_symlink() or path.exists():
        remove_directory(path)


def copy_files(source: Path, target: Path) -> None:
    """Copy the regular files in a directory and raise the first failure; shutil.copytree raises a list of them."""
    for path in sorted(source.iterdir()):
        if path.is_file():
            shutil.copyfile(path, target / path.name)


@contextmanager
def translate_os_errors(doing: str, *, fix: str, fix_when_full: str | None = None) -> Iterator[None]:
    """Translate OSError: to OutOfResources, with `fix_when_full` or `fix`, if space ran out, else to InputError."""
    try:
        yield
    except OSError as error:
        where = str(error.filename) if error.filename else None
        if error.errno in NO_SPACE:
            fix = f"free some space; then {fix_when_full or fix}"
            raise OutOfResources(f"no space left while {doing}", where=where, fix=fix) from error
        if error.errno in IN_THE_WAY:
            fix = f"move it away; then {fix}"
        raise InputError(f"{error.strerror or error} while {doing}", where=where, fix=fix) from error


def open_lock_file(path: Path) -> int:
    """Return a descriptor of a lock file, created if missing with the mode that the umask gives.

    Another user's file that we may only read is opened read-only, which is enough for flock(2), except over NFS.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY)


def lock_holder(directory: Path) -> str | None:
    """Return who holds the lock of a run directory, None if nobody does; nothing is written."""
    from filelock import lock_descriptor

    descriptor = -1
    for mode in (os.O_RDWR, os.O_RDONLY):  # see `open_lock_file`
        with suppress(OSError):
            descriptor = os.open(directory / LOCK, mode | getattr(os, "O_NONBLOCK", 0))
            break
    if descriptor < 0:
        return None
    try:
        return None if lock_descriptor(descriptor, blocking=False) else _noted_holder(directory)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _noted_holder(directory: Path) -> str:
    holder = ""
    with suppress(OSError):  # Windows locks the note against reading too
        holder = (directory / LOCK).read_text(errors="replace").strip()
    return holder or "another process"


class RunLock:
    """The lock of a run directory, held from construction until `release` or the end of the process.

    Raises InputError naming the holder if another process has it, with this fix.
    """

    def __init__(self, directory: Path, *, fix: str = "wait for it, or choose another --out") -> None:
        from filelock import lock_descriptor

        path = directory / LOCK
        self.descriptor = open_lock_file(path)
        deadline = time.monotonic() + PATIENCE
        try:
            while not (is_held := lock_descriptor(self.descriptor, blocking=False)) and time.monotonic() < deadline:
                time.sleep(PATIENCE / 20)
            is_removed = not os.path.samestat(os.fstat(self.descriptor), os.stat(path))  # and made anew
        except OSError as error:
            self.release()
            error.filename = str(path)
            raise
        if not is_held or is_removed:
            self.release()
            message = f"the run is in use by {_noted_holder(directory)}"
            raise InputError(message, where=str(directory), fix=fix)
        with suppress(OSError):  # a read-only file is locked all the same, but names an earlier holder
            os.ftruncate(self.descriptor, 0)
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            os.write(self.descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def release(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
