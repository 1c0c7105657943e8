"""Turn any exception into the one error line, exit code and log file that the user gets."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
import tempfile
import traceback
from pathlib import Path

import gptkit
from gptkit.errors import (
    AGAIN,
    GptkitError,
    InputError,
    Interrupted,
    OtherRankFailed,
    OutOfResources,
    Reported,
    UsageError,
)
from gptkit.recipes import CONFIG
from gptkit.system.files import NO_SPACE
from gptkit.system.limits import NO_TEMPORARY_FILES, bound_of, chain, is_out_of_memory, refusal

FULL_WORDS = ("No space left on device", NO_TEMPORARY_FILES)
# What gloo and NCCL say when another process has died.
LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "remote process exited")


def as_gptkit_error(error: BaseException, run_directory: Path | None, command_line: str) -> GptkitError:
    """Return the error to show; a bug's traceback is logged to the run directory, else to a temporary file."""
    # An interrupted library may have raised an error of its own.
    error = next((cause for cause in chain(error) if isinstance(cause, KeyboardInterrupt | Interrupted)), error)
    if isinstance(error, KeyboardInterrupt):
        error = Interrupted("interrupted", signal_number=signal.SIGINT, fix=AGAIN)
    resume = AGAIN
    if run_directory is not None and (run_directory / CONFIG).is_file():
        command = shlex.split(command_line)[1]
        resume = f"resume with: gptkit {command} --resume {shlex.quote(str(run_directory))}"
    if isinstance(error, GptkitError) and error.fix is not None:
        error.fix = error.fix.replace(AGAIN, resume)
    if isinstance(error, InputError | UsageError) and (refused := refusal(error, resume)):
        return refused
    if isinstance(error, Reported | OtherRankFailed) or (isinstance(error, GptkitError) and error.exit_code != 1):
        return error
    if hasattr(error, "format_message"):  # a usage error from Typer
        context = getattr(error, "ctx", None)
        message = error.format_message().rstrip(".")
        path = context.command_path if context else "gptkit"
        return UsageError(message[:1].lower() + message[1:], where=path, fix=f"see {path} --help")
    if any(words in str(error) for words in LOST_PEER):
        return OtherRankFailed("another process of the run died", fix="see its own error message")
    if is_out_of_memory(error):
        return _out_of_memory(error, command_line)
    if refused := refusal(error, resume):
        return refused
    if (isinstance(error, OSError) and error.errno in NO_SPACE) or any(words in str(error) for words in FULL_WORDS):
        fix = f"free some space; then {resume}"
        return OutOfResources("no space left on the disk", where=getattr(error, "filename", None), fix=fix)
    if isinstance(error, OSError) and error.filename is not None:
        reason = (error.strerror or type(error).__name__).lower()
        return InputError(reason, where=str(error.filename), fix="check the path and its permissions")
    log = _write_log(error, run_directory, command_line)
    fix = f"a bug in gptkit: please report it with {log}" if log else "a bug in gptkit: please report it"
    return GptkitError(f"{type(error).__name__}: {error}", where=str(log) if log else None, fix=fix)


def _out_of_memory(error: BaseException, command_line: str) -> GptkitError:
    command = [*shlex.split(command_line)[1:], ""][0]
    flags = {"generate": "--num-samples or --max-new-tokens", "eval": "--batch-size", "predict": "--batch-size"}
    fix = f"lower {flags.get(command, '--micro-batch or --sequence-length')}, or use a smaller model"
    if "out of memory" in str(error):  # torch's words for GPUs only
        return OutOfResources("out of memory", where="the GPU", fix=fix)
    limited = refusal(MemoryError(), fix) if bound_of("RLIMIT_AS") is not None else None
    return limited or OutOfResources("out of memory", where="main memory", fix=fix)


def _write_log(error: BaseException, run_directory: Path | None, command_line: str) -> Path | None:
    text = "".join(traceback.format_exception(error))
    content = f"gptkit {gptkit.__version__}\n{command_line}\n\n{text}"
    for place in (run_directory, None):
        with contextlib.suppress(OSError):
            number, name = tempfile.mkstemp(".log", "gptkit-error-", place)
            with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(content)
            if place:  # a group may share the run, but tempfile creates with mode 600
                with contextlib.suppress(OSError):
                    shutil.copymode(place / CONFIG, name)
            return Path(name)
    return None
