"""Resource limits: recognize errors about memory, threads, open files or file size, and name the limit behind them."""

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
    """A limit of the process: the message for reaching it, its name in `resource`, its unit, its shell command."""

    message: str
    name: str
    unit: str
    command: str


LIMITS = {
    errno.EFBIG: Limit("a file would grow too large", "RLIMIT_FSIZE", "bytes per file", "ulimit -f"),
    errno.ENOMEM: Limit("out of memory", "RLIMIT_AS", "bytes of address space", "ulimit -v"),
    errno.EAGAIN: Limit("no more threads or processes can be started", "RLIMIT_NPROC", "processes", "ulimit -u"),
    errno.EMFILE: Limit("too many open files", "RLIMIT_NOFILE", "open files", "ulimit -n"),
    errno.ENFILE: Limit("too many open files", "RLIMIT_NOFILE", "open files", "ulimit -n"),
}
WORDS = {  # in the messages of libraries that keep no errno
    "File too large": errno.EFBIG,
    "File size limit exceeded": errno.EFBIG,
    "failed to map segment": errno.ENOMEM,
    "annot allocate memory": errno.ENOMEM,
    "can't start new thread": errno.EAGAIN,
    "Resource temporarily unavailable": errno.EAGAIN,
    "Too many open files": errno.EMFILE,
}
NO_TEMPORARY_FILES = "No usable temporary directory"  # tempfile's message if the disk or a file cannot grow
FEW_PROCESSES = 4096  # a limit that a user's processes and threads may come near
LEAST_ADDRESS_SPACE = 1 << 30  # torch, transformers and scipy map 1.06 GiB, with one thread


def refusal(error: BaseException, fix: str) -> OutOfResources | None:
    """Return the OutOfResources for an error that is, or comes from, an exhausted limit; None for any other.

    `fix` is what helps besides raising the limit. An InputError may also come from a limit: a file that could not be
    opened was then no bad input.
    """
    for cause in chain(error):
        # Under one of our errors this is a lock that another process holds; we never catch a failed fork.
        if isinstance(cause, BlockingIOError) and isinstance(error, GptkitError):
            continue
        if (number := _number(cause)) is not None:
            return _resource_error(number, getattr(cause, "filename", None), fix)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the host or a device ran out of memory, without importing torch to recognize its errors."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("out of memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


@contextmanager
def translate_out_of_memory(fix: str) -> Iterator[None]:
    """Translate the errors of exhausted memory, a device's too, to OutOfResources with this `fix`."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfResources("out of memory", fix=fix) from error


def guard_limits() -> None:
    """Detect early what libraries do not report: out of threads OpenMP aborts, out of memory OpenBLAS hangs.

    Call this before importing them. Raises OutOfResources if threads cannot be started; if the address space is too
    small, importing torch will raise it.
    """
    space, processes = bound_of("RLIMIT_AS"), bound_of("RLIMIT_NPROC")
    tight = processes is not None and processes < FEW_PROCESSES
    if space is not None or tight:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each thread takes 32 MiB
    if space is not None and space < LEAST_ADDRESS_SPACE:
        sys.meta_path.insert(0, _Guard())
    if tight:
        _try_threads(2 * (os.cpu_count() or 1))


def _try_threads(count: int) -> None:
    """Start and end as many threads as the libraries will start."""
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
    """Return this process's soft limit by its name in `resource`, or None if unlimited."""
    if resource is None:
        return None
    bound = resource.getrlimit(getattr(resource, name))[0]
    return None if bound == resource.RLIM_INFINITY else bound


class _Guard(MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "torch._C":
            raise _resource_error(errno.ENOMEM, None, f"torch needs at least {LEAST_ADDRESS_SPACE:,} bytes")


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes: those it was raised from, or while handling."""
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
