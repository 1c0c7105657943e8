"""What can be wrong with any file that is read, as one InputError each."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gptkit.errors import InputError


@contextmanager
def translate_read_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system and gzip raise while reading into an InputError."""
    where = str(path)
    try:
        yield
    except FileNotFoundError:
        raise InputError("file not found", where=where, fix="check the path") from None
    except PermissionError:
        raise InputError("file cannot be read: permission denied", where=where, fix="chmod +r it") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        message = f"damaged or truncated gzip file: {error}"
        raise InputError(message, where=where, fix="fetch or compress it again") from None
    except OSError as error:
        raise InputError(f"file cannot be read: {error.strerror or error}", where=where, fix="check the path") from None


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


def require_regular(path: Path) -> None:
    """Refuse directories, FIFOs, sockets and devices: opening a FIFO would wait for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise InputError("not a regular file", where=str(path), fix="save the text to a file and name that")


def invalid_utf8(where: str, error: UnicodeDecodeError) -> InputError:
    """Return the error of bytes that are not UTF-8, with the bytes."""
    found = " ".join(f"0x{byte:02x}" for byte in error.object[error.start : error.end])
    return InputError(
        f"not valid UTF-8: {found} ({error.reason})",
        where=where,
        fix="convert it to UTF-8 (for instance iconv -f CP1252 -t UTF-8 FILE), or mend the bytes",
    )
