"""JSON as its standard has it: no NaN, no key twice, nothing nested without end. Standard library alone."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from gptkit.errors import InputError

LARGEST_FILE = 1 << 28
_MEND = "mend the file, or fetch it again"


def json_object(text: str, where: str, fix: str) -> dict[str, Any]:
    """Return the object that `text` holds; InputError at `where` (file:line) for anything else."""
    try:
        row = _DECODER.decode(text)
    except RecursionError:
        raise InputError("not valid JSON: nested too deeply", where=where, fix=fix) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", where=where, fix=fix) from None
    if not isinstance(row, dict):
        raise InputError(f"a JSON {json_name(row)}, where an object is needed", where=where, fix=fix)
    return row


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; InputError, with its line, for what is no file of valid JSON in UTF-8."""
    text = _text_of(path)
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise InputError("not valid JSON: nested too deeply", where=str(path), fix=_MEND) from None
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON: {error.msg}", where=f"{path}:{error.lineno}", fix=_MEND) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", where=str(path), fix=_MEND) from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds, or raise InputError."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError("not a JSON object", where=str(path), fix="write {...}")
    return content


def json_name(value: object) -> str:
    """Return what JSON calls a value."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def require_regular(path: Path, fix: str = _MEND) -> int:
    """Return the size of a file; InputError for what is none, or not regular: opening a FIFO would wait for ever."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), fix="check the path") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a regular file", where=str(path), fix=fix)
    return status.st_size


def _text_of(path: Path) -> str:
    where = str(path)
    if require_regular(path) > LARGEST_FILE:
        raise InputError(f"a JSON file of over {LARGEST_FILE >> 20} MiB", where=where, fix=_MEND)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=where, fix="check the path") from None
    except UnicodeDecodeError as error:
        raise InputError(f"not valid JSON: byte {error.start} is not UTF-8", where=where, fix=_MEND) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {key!r}")
    return row


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
