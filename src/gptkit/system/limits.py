"""What the system refuses for want of memory, threads, open files or file size, and the limit behind it."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import NamedTuple

from gptkit.errors import GptkitError, OutOfResources

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]


class Limit(NamedTuple):
    """A limit of the process: what running into it is called, its name in `resource`, its unit, how shells call it."""

    message: str
    name: str
    unit: str
    command: str


LIMITS = {
    errno.EFBIG: Limit("a file would grow too large", "RLIMIT_FSIZE", "bytes a file", "ulimit -f"),
    errno.ENOMEM: Limit("out of memory", "RLIMIT_AS", "bytes of address space", "ulimit -v"),
    errno.EAGAIN: Limit("no more threads or processes can be started", "RLIMIT_NPROC", "processes", "ulimit -u"),
    errno.EMFILE: Limit("too many open files", "RLIMIT_NOFILE", "open files", "ulimit -n"),
    errno.ENFILE: Limit("too many open files", "RLIMIT_NOFILE", "open files", "ulimit -n"),
}
WORDS = {  # of libraries that keep no errno
    "File too large": errno.EFBIG,
    "File size limit exceeded": errno.EFBIG,
    "failed to map segment": errno.ENOMEM,
    "annot allocate memory": errno.ENOMEM,
    "can't start new thread": errno.EAGAIN,
    "Resource temporarily unavailable": errno.EAGAIN,
    "Too many open files": errno.EMFILE,
}
NO_TEMPORARY_FILES = "No usable temporary directory"  # which tempfile says of a disk or a file that cannot grow
FEW_PROCESSES = 4096  # a limit that a machine's own processes and threads may come near
LEAST_ADDRESS_SPACE = 1 << 30  # torch, transformers and scipy alone map 1.06 GiB, with one thread


def refusal(error: BaseException, fix: str) -> OutOfResources | None:
    """Return the error for a refusal that `error` is or comes from, None for any other; `fix` is what helps beside it.

    An error of ours may have been raised from the system's: what could not be opened was no bad input then.
    """
    for cause in chain(error):
        # Of ours, it is a lock that another process holds; a process that cannot be forked is not caught.
        if isinstance(cause, BlockingIOError) and isinstance(error, GptkitError):
            continue
        if (number := _number(cause)) is not None:
            return _resource_error(number, getattr(cause, "filename", None), fix)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory ran out, a device's or the host's; torch's errors are known without torch, which may not be
    there."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("out of memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


@contextmanager
def translate_out_of_memory(fix: str) -> Iterator[None]:
    """Raise OutOfResources, with what helps, where memory ran out."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfResources("out of memory", fix=fix) from error


def guard_limits() -> None:
    """Refuse what libraries would not report: without threads OpenMP ends the process, without memory OpenBLAS waits.

    Called before any of them is imported. Raises OutOfResources where threads lack, and later, where torch is imported.
    """
    space, processes = bound_of("RLIMIT_AS"), bound_of("RLIMIT_NPROC")
    tight = processes is not None and processes < FEW_PROCESSES
    if space is not None or tight:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each takes 32 MiB for itself
    if space is not None and space < LEAST_ADDRESS_SPACE:
        sys.meta_path.insert(0, _Guard())
    if tight:
        _try_threads(2 * (os.cpu_count() or 1))


def _try_threads(count: int) -> None:
    """Start and end as many threads as the libraries will."""
    over = threading.Event()
    threads = [threading.Thread(target=over.wait, daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        raise _resource_error(errno.EAGAIN, None, "or end other processes of this user") from None
    finally:
        over.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def bound_of(name: str) -> int | None:
    """Return a limit of this process as `resource` names it, None where there is none."""
    if resource is None:
        return None
    bound = resource.getrlimit(getattr(resource, name))[0]
    return None if bound == resource.RLIM_INFINITY else bound


class _Guard(MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "torch._C":
            raise _resource_error(errno.ENOMEM, None, f"torch needs {LEAST_ADDRESS_SPACE:,} bytes at the very least")


def chain(error: BaseException) -> Iterator[BaseException]:
    """Return an error and those that it was raised from, or while handling."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _number(error: BaseException) -> int | None:
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if NO_TEMPORARY_FILES in str(error) and bound_of("RLIMIT_FSIZE") is not None:
        return errno.EFBIG
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in LIMITS else None
    if isinstance(error, GptkitError):
        return None
    return next((number for words, number in WORDS.items() if words in str(error)), None)


def _resource_error(number: int, where: object, fix: str) -> OutOfResources:
    limit = LIMITS[number]
    bound = bound_of(limit.name)
    raised = f"raise {limit.command}, which allows {bound:,} {limit.unit}" if bound is not None else ""
    at = str(where) if where is not None else limit.command if raised else None
    return OutOfResources(limit.message, where=at, fix="; ".join(filter(None, [raised, fix])) or "free some of them")


def usable_processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
