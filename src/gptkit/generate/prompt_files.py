"""Many prompts in a file, and the file that their samples are written to as they finish and found in again.

    prompts.txt              a prompt a line; blank lines are passed over
    prompts.jsonl            {"prompt": ...} a line; other keys are passed over
    prompts.samples.jsonl    {"line", "sample", "prompt", "text", "token_ids", ..., "settings"} a line

A sample counts as there when its line number, its prompt and the settings, hashed with the model, are the same. Samples
that were drawn with the random numbers of their own line say so in "settings", so that none of an older version, which
drew every line alike, counts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from gptkit.errors import InputError
from gptkit.model_files.weights import model_files
from gptkit.system.json_files import json_name, json_object
from gptkit.system.reading import invalid_utf8, require_regular, translate_read_errors
from gptkit.text.tokenizers.files import tokenizer_files

try:
    import fcntl
except ImportError:  # Windows: two processes write the same samples twice, and the last one's sorted file stays
    fcntl = None  # type: ignore[assignment]

SUFFIXES = (".txt", ".jsonl")
BY_LINE = "-by-line"  # after the hash of the settings
_ANOTHER = "name another --output, or remove the file"
_CURE = 'each line must be one JSON object such as {"prompt": "..."}'


class FilePrompt(NamedTuple):
    """A prompt and the number of its line, from 1."""

    line: int
    text: str


def read_prompts(path: Path) -> list[FilePrompt]:
    """Return the prompts of a .txt or .jsonl; InputError with file:line for what is none."""
    if path.suffix not in SUFFIXES:
        fix = 'name a .txt of a prompt a line, or a .jsonl of {"prompt": ...}'
        raise InputError("neither .txt nor .jsonl", where=str(path), fix=fix)
    with translate_read_errors(path):
        require_regular(path)
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    prompts = []
    for number, raw in enumerate(content.split(b"\n"), start=1):
        where = f"{path}:{number}"
        line = _decoded(raw.removesuffix(b"\r"), where)
        if line.strip():
            text = line if path.suffix == ".txt" else _prompt_of(line, where)
            prompts.append(FilePrompt(number, text))
    if not prompts:
        raise InputError("no prompt in this file", where=str(path), fix="write one a line")
    return prompts


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid_utf8(f"{where}, byte {error.start}", error) from None


def _prompt_of(line: str, where: str) -> str:
    row = json_object(line, where, _CURE)
    if "prompt" not in row:
        keys = ", ".join(map(repr, list(row)[:8])) or "none"
        raise InputError(f'no "prompt" in this line (keys: {keys})', where=where, fix="rename its key to prompt")
    prompt = row["prompt"]
    if not isinstance(prompt, str):
        raise InputError(f'"prompt" is a JSON {json_name(prompt)}, not a string', where=where, fix=_CURE)
    if not prompt:
        raise InputError("the prompt is empty", where=where, fix="give some text, or leave the line out")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError('"prompt" holds a lone surrogate', where=where, fix="mend or drop the line") from None
    return prompt


def default_output(prompts: Path) -> Path:
    """Return where the samples of a prompts file go: NAME.samples.jsonl beside it."""
    return prompts.with_suffix(".samples.jsonl")


def settings_hash(settings: Mapping[str, Any], model: Path) -> str:
    """Return a hash of all that texts depend on but the prompt: the settings, the files of model and tokenizer."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in sorted([*model_files(model), *tokenizer_files(model)]):
        with translate_read_errors(path), open(path, "rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


class SamplesFile:
    """The samples of a prompts file, appended as they come; to be used in a `with`.

    `rows` has those that are there by (line, sample). A last line that an interruption left half written is cut off;
    samples of prompts that have changed since are passed over, `outdated` counts them. InputError where the file holds
    samples of other settings, or anything else.
    """

    def __init__(self, path: Path, settings: str, prompts: Sequence[FilePrompt]) -> None:
        self.path = path
        self.outdated = 0
        self._settings = settings
        self.rows: dict[tuple[int, int], dict[str, Any]] = {}
        with translate_read_errors(path):
            if path.exists():
                require_regular(path)
            self._file = open(path, "a+b")  # noqa: SIM115  closed by __exit__
        try:
            self._lock()
            self._read({one.line: one.text for one in prompts})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self.rows and not self.outdated:
            self.path.unlink(missing_ok=True)  # an empty file would only puzzle

    def append(self, line: int, sample: int, facts: Mapping[str, Any]) -> None:
        """Write a sample, where a kill of this process leaves it."""
        row = {"line": line, "sample": sample, **facts, "settings": self._settings}
        self.rows[line, sample] = row
        self._file.write(_json_line(row))
        self._file.flush()

    def finish(self) -> None:
        """Put the samples in the order of their prompts, without those that are outdated."""
        content = b"".join(_json_line(self.rows[place]) for place in sorted(self.rows))
        self._file.close()
        if self.path.read_bytes() == content:
            return
        part = self.path.with_name(self.path.name + ".part")
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path)

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "wait for it, or name another --output"
            raise InputError("another process writes this file", where=str(self.path), fix=fix) from None

    def _read(self, prompts: Mapping[int, str]) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        for number, raw in enumerate(content[:whole].split(b"\n")[:-1], start=1):
            row = self._checked(raw, f"{self.path}:{number}")
            if prompts.get(row["line"]) == row["prompt"]:
                self.rows[row["line"], row["sample"]] = row
            else:
                self.outdated += 1
        self._file.truncate(whole)

    def _checked(self, raw: bytes, where: str) -> dict[str, Any]:
        row = json_object(_decoded(raw, where), where, _ANOTHER)
        kinds = {"line": int, "sample": int, "prompt": str, "text": str, "token_ids": list, "settings": str}
        if any(not isinstance(row.get(key), kind) for key, kind in kinds.items()):
            raise InputError("no sample of gptkit generate", where=where, fix=_ANOTHER)
        if row["settings"] != self._settings:
            raise InputError("samples of other settings, another model or an older gptkit", where=where, fix=_ANOTHER)
        return row


def _json_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, allow_nan=False).encode() + b"\n"
