"""Strict JSON: no NaN, no duplicate keys, no bottomless nesting."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from gptkit.errors import InputError
from gptkit.system.reading import read_text

LARGEST_FILE = 1 << 28
_MEND = "mend the file, or fetch it again"


def json_object(text: str, where: str, fix: str) -> dict[str, Any]:
    """Return the object that `text` holds; InputError at `where` (file:line) for anything else."""
    row = _parsed(text, where, fix)
    if not isinstance(row, dict):
        raise InputError(f"a JSON {json_name(row)}, where an object is needed", where=where, fix=fix)
    return row


def json_string(line: str, key: str, where: str) -> str:
    """Return the string that an object holds under `key`; InputError at `where` (file:line) for anything else."""
    fix = f'each line must be one JSON object such as {{"{key}": "..."}}'
    row = json_object(line, where, fix)
    if key not in row:
        keys = ", ".join(map(repr, list(row)[:8])) or "none"
        raise InputError(f'no "{key}" in this line (keys: {keys})', where=where, fix=f"rename its key to {key}")
    if not isinstance(row[key], str):
        raise InputError(f'"{key}" is a JSON {json_name(row[key])}, not a string', where=where, fix=fix)
    return str(row[key])


def read_json(path: Path) -> Any:
    """Return the value in a JSON file; InputError, with the line, for anything but valid JSON in UTF-8."""
    return _parsed(read_text(path, "a JSON file", most=LARGEST_FILE, fix=_MEND), str(path), _MEND, is_file=True)


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


def _parsed(text: str, where: str, fix: str, *, is_file: bool = False) -> Any:
    try:
        return _DECODER.decode(text)
    except RecursionError:
        problem = "nested too deeply"
    except json.JSONDecodeError as error:
        problem = error.msg if is_file else str(error)
        where = f"{where}:{error.lineno}" if is_file else where
    except ValueError as error:
        problem = str(error)
    raise InputError(f"not valid JSON: {problem}", where=where, fix=fix)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {key!r}")
    return row


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
