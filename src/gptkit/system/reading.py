"""Reading files: whatever can go wrong becomes one error with its place and its fix."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gptkit.errors import GptkitError, InputError


@contextmanager
def translate_read_errors(
    path: Path, *, fix: str = "check the path", error: type[GptkitError] = InputError
) -> Iterator[None]:
    """Turn what the operating system and gzip raise while reading into one error; `fix` is for a missing file."""
    where = str(path)
    try:
        yield
    except FileNotFoundError:
        raise error("file not found", where=where, fix=fix) from None
    except PermissionError:
        raise error("file cannot be read: permission denied", where=where, fix="chmod +r it") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        message = f"damaged or truncated gzip file: {problem}"
        raise error(message, where=where, fix="fetch or compress it again") from None
    except OSError as problem:
        raise error(f"file cannot be read: {problem.strerror or problem}", where=where, fix=fix) from None


@contextmanager
def translate_parquet_errors(where: str) -> Iterator[None]:
    """Turn what pyarrow raises over a file's content into an InputError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's own, not the content's
        reason = (str(error) or type(error).__name__).splitlines()[0]
        message = f"not a readable parquet file: {reason}"
        raise InputError(message, where=where, fix="write or fetch it again") from None


def require_regular(
    path: Path,
    fix: str = "save the text to a file and name that",
    error: type[GptkitError] = InputError,
    *,
    missing: str = "check the path",
) -> int:
    """Return the size of a file; refuse directories, FIFOs, sockets and devices: opening a FIFO would wait forever."""
    with translate_read_errors(path, fix=missing, error=error):
        status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise error("not a regular file", where=str(path), fix=fix)
    return status.st_size


def read_text(
    path: Path,
    what: str,
    *,
    most: int,
    fix: str,
    missing: str = "check the path",
    error: type[GptkitError] = InputError,
) -> str:
    """Return the UTF-8 text of a file that should hold `what` ("a recipe") in at most `most` bytes."""
    with translate_read_errors(path, fix=missing, error=error):
        if require_regular(path, fix, error, missing=missing) > most:
            raise error(f"{what} of over {most // 10**6:,} MB", where=str(path), fix=fix)
        raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        message = f"byte {problem.start} is not UTF-8"
        raise error(message, where=f"{path}:{line}", fix="save it as UTF-8") from None


def decoded(raw: bytes, where: str, *, first_byte: int | None = None) -> str:
    """Decode UTF-8; the InputError for invalid bytes names their offset if `first_byte`, that of `raw`, is given."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        place = where if first_byte is None else f"{where}, byte {first_byte + error.start}"
        raise invalid_utf8(place, error) from None


def invalid_utf8(where: str, error: UnicodeDecodeError) -> InputError:
    """Return the error for bytes that are not UTF-8, with the bytes."""
    found = " ".join(f"0x{byte:02x}" for byte in error.object[error.start : error.end])
    return InputError(
        f"not valid UTF-8: {found} ({error.reason})",
        where=where,
        fix="convert it to UTF-8 (for instance iconv -f CP1252 -t UTF-8 FILE), or mend the bytes",
    )


def unusable_character(text: str) -> str | None:
    """Return what a text holds that a UTF-8 text file cannot, in words: a NUL character or a lone surrogate."""
    if "\0" in text:
        return "a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"a lone surrogate (\\u{ord(text[error.start]):04x})"
    return None
