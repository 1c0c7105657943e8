"""Files of results to which a command appends as it works, so that rerunning it makes only what is missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from gptkit.errors import InputError, UsageError
from gptkit.model_files import model_files
from gptkit.system.files import require_writable
from gptkit.system.reading import require_regular, translate_read_errors
from gptkit.system.writing import json_text
from gptkit.text.tokenizers.files import tokenizer_files

ANOTHER = "choose another --output, or remove the file"


def settings_hash(settings: Mapping[str, Any], model: Path) -> str:
    """Return a hash of all that results depend on besides the inputs: settings, model files and tokenizer files."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in sorted([*model_files(model), *tokenizer_files(model)]):
        with translate_read_errors(path), open(path, "rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def check_output(output: Path, source: Path, what: str, sources: str) -> None:
    """Raise UsageError unless --output names a .jsonl for `what` that can be written, and not that of the `sources`."""
    if output.suffix != ".jsonl":
        raise UsageError(f"the {what} file must be .jsonl", where="--output", fix=f"name it {output.name}.jsonl")
    if output.resolve() == source.resolve():
        raise UsageError(f"the {what} would overwrite the {sources}", where="--output", fix="choose another file")
    require_writable(output, "--output")


def open_to_append(path: Path) -> BinaryIO:
    """Open a file to read and append to, locked; InputError if it is not regular, or another process writes it."""
    from filelock import lock_descriptor

    with translate_read_errors(path):
        if path.exists():
            require_regular(path, ANOTHER)
        file = open(path, "a+b")  # noqa: SIM115  the caller closes it
    if not lock_descriptor(file.fileno(), blocking=False):
        file.close()
        fix = "wait for it, or choose another --output"
        raise InputError("another process is writing this file", where=str(path), fix=fix)
    return file


def json_row(row: Mapping[str, Any]) -> bytes:
    """Return a line of the file."""
    return json_text(row).encode() + b"\n"
