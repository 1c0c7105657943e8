"""The two files of a BPE vocabulary: a JSON object of piece -> id, and its merges, best first, one a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptkit.errors import InputError
from gptkit.system.json_files import read_json

Merge = tuple[str, str]


def read_vocabulary(path: Path) -> dict[str, int]:
    """Return piece -> id of a vocabulary file."""
    return checked_vocabulary(read_json(path), path)


def read_merges(path: Path) -> list[Merge]:
    """Return the merges of a file, which may start with a #version line."""
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")  # pieces may hold other line separators
    except UnicodeDecodeError as error:
        raise InputError(f"not valid UTF-8: {error.reason}", where=str(path), fix="fetch the file again") from None
    except OSError as error:
        raise InputError(f"file cannot be read: {error.strerror}", where=str(path), fix="check the path") from None
    merges = []
    for number, line in enumerate(lines, start=1):
        pair = line.split()
        if (number == 1 and line.startswith("#version")) or not pair:
            continue
        if len(pair) != 2:
            message = f"a merge is two pieces, not {len(pair)}"
            raise InputError(message, where=f"{path}:{number}", fix="fetch the file again")
        merges.append((pair[0], pair[1]))
    return merges


def checked_vocabulary(found: Any, path: Path) -> dict[str, int]:
    """Return `found` if it maps pieces to the ids 0, 1, ... each once."""
    numbers = found.values() if isinstance(found, dict) else [None]
    if not all(type(number) is int for number in numbers) or sorted(numbers) != list(range(len(found))):
        message = "not a vocabulary: a JSON object of pieces with the ids 0, 1, 2 ... is needed"
        raise InputError(message, where=str(path), fix="fetch the file again")
    return dict(found)


def checked_merges(found: Any, path: Path) -> list[Merge]:
    """Return the merges of a tokenizer.json: pairs, or strings as older versions wrote them."""
    merges = []
    for merge in found if isinstance(found, list) else [None]:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(piece, str) for piece in pair):
            raise InputError("a merge is two pieces", where=str(path), fix="fetch the file again")
        merges.append((pair[0], pair[1]))
    return merges
