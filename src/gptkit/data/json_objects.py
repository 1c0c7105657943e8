"""JSON as its standard has it, an object at a time: no NaN, no key twice."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from gptkit.errors import InputError


def json_object(text: str, where: str, fix: str) -> dict[str, Any]:
    """Return the object that `text` holds; InputError at `where` (file:line) for anything else."""
    try:
        row = _DECODER.decode(text)
    except RecursionError:
        raise InputError("JSON nested too deeply", where=where, fix=fix) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", where=where, fix=fix) from None
    if not isinstance(row, dict):
        raise InputError(f"a JSON {json_name(row)}, where an object is needed", where=where, fix=fix)
    return row


def json_name(value: object) -> str:
    """Return what JSON calls a value."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {key!r}")
    return row


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
