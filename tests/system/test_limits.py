"""What the system refuses ends in exit 6 and one line that names the limit, whatever kind of error it came as."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from generation_toy import write_model
from gptkit.cli.failures import as_gptkit_error
from gptkit.decoding.engines import NativeUnavailableError
from gptkit.errors import GptkitError, InputError, Interrupted, OutOfResources, UsageError

LINE = "gptkit generate Hello"


class PanicException(BaseException):
    """Like that of tokenizers, whose panics are no Exception."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EFBIG, "File too large"), "a file would grow too large"),
        (RuntimeError("File too large (os error 27)"), "a file would grow too large"),
        (RuntimeError("cc: File size limit exceeded signal terminated program cc1"), "a file would grow too large"),
        (OSError(errno.EMFILE, "Too many open files", "here"), "too many open files"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (MemoryError(), "out of memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "out of memory"),
        (RuntimeError("can't start new thread"), "no more threads or processes can be started"),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "no more threads or processes can be started"),
        (
            PanicException("The global thread pool has not been initialized.: Resource temporarily unavailable"),
            "no more threads or processes can be started",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk"),
    ],
)
def test_a_refusal_is_no_bug(error: BaseException, message: str) -> None:
    found = as_gptkit_error(error, None, LINE)
    assert isinstance(found, OutOfResources)
    assert found.message == message
    assert found.fix


def raised(error: BaseException, kind: type[GptkitError] = InputError) -> GptkitError:
    """Return an error of ours that was raised because of another one."""
    try:
        try:
            raise error
        except BaseException:
            raise kind("file cannot be read", where="x", fix="check the path") from None
    except GptkitError as ours:
        return ours


def test_what_could_not_be_opened_was_no_bad_input_but_a_lock_of_others_is() -> None:
    assert as_gptkit_error(raised(OSError(errno.EMFILE, "Too many open files")), None, LINE).exit_code == 6
    for number in (errno.EAGAIN, errno.ENOENT, errno.EACCES):  # flock says EAGAIN
        assert as_gptkit_error(raised(OSError(number, os.strerror(number))), None, LINE).exit_code == 2


def test_a_compiler_that_may_not_write_is_no_wrong_option() -> None:
    error = raised(NativeUnavailableError("cc: File size limit exceeded signal terminated program cc1"), UsageError)
    assert as_gptkit_error(error, None, LINE).exit_code == 6
    assert as_gptkit_error(raised(NativeUnavailableError("no C compiler"), UsageError), None, LINE).exit_code == 2


def test_a_library_that_was_interrupted_found_no_fault() -> None:
    """tokenizers' errors have no kind of their own, so a signal while a file is parsed would count as damage."""
    terminated = Interrupted("interrupted by SIGTERM", signal_number=signal.SIGTERM)
    assert as_gptkit_error(raised(terminated), None, LINE).exit_code == 143
    assert as_gptkit_error(raised(KeyboardInterrupt()), None, LINE).exit_code == 130


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize(
    ("limits", "code", "told"),
    [
        ("-v 900000", 6, "out of memory (ulimit -v) - raise ulimit -v, which allows 921,600,000 bytes"),
        ("-f 0", 6, "a file would grow too large (ulimit -f) - raise ulimit -f, which allows 0 bytes per file"),
    ],
)
def test_a_limit_of_the_shell_is_named(limits: str, code: int, told: str, tmp_path: Path) -> None:
    """At -v 900000 torch loads, and OpenBLAS, which comes after it, would ask for memory for ever."""
    model = write_model(tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("First\n")
    words = ["generate", "--prompts", "prompts.txt", "--model", str(model), "--compile", "off", "--max-new-tokens", "1"]
    shell = f'ulimit {limits}; exec "$0" -m gptkit "$@"'
    ended = subprocess.run(
        ["bash", "-c", shell, sys.executable, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == code, ended.stderr
    assert told in ended.stderr.splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_threads_that_cannot_be_started_are_found_before_a_library_needs_them() -> None:
    """OpenMP would end the process with a line of its own. Root has no such limit, so the child is somebody else."""
    script = """if True:
        import os, resource
        from gptkit.errors import OutOfResources
        from gptkit.system.limits import guard_limits
        if os.getuid() == 0:
            os.setuid(61234)
        guard_limits()
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        try:
            guard_limits()
        except OutOfResources as error:
            print(error)
    """
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "raise ulimit -u, which allows 1 processes" in ended.stdout
