"""`gptkit generate --prompts FILE`: many prompts in a file, their samples in another, written as they finish.

    prompts.txt              a prompt a line; blank lines are skipped
    prompts.jsonl            {"prompt": ...} a line; other keys are ignored
    prompts.samples.jsonl    {"line", "sample", "prompt", "text", "token_ids", ..., "settings"} a line

A sample counts as done when its line number, its prompt and the settings, hashed with the model, are the same. Samples
that were drawn with the random numbers of their own line say so in "settings", so that none of an older version, which
drew every line alike, counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from gptkit.console import Console
from gptkit.decoding.text_model import Prompt, TextModel
from gptkit.decoding.text_options import what_texts_depend_on
from gptkit.errors import InputError, UsageError
from gptkit.generate.options import GenerateOptions
from gptkit.model_files.files import model_files
from gptkit.system.files import write_atomically
from gptkit.system.reading import decoded, json_name, json_object, require_regular, translate_read_errors
from gptkit.text.tokenizers.files import tokenizer_files

SUFFIXES = (".txt", ".jsonl")
BY_LINE = "-by-line"  # after the hash of the settings
_ANOTHER = "name another --output, or remove the file"
_CURE = 'each line must be one JSON object such as {"prompt": "..."}'


class FilePrompt(NamedTuple):
    """A prompt and the number of its line, from 1."""

    line: int
    text: str


def generate_file(path: Path, directory: Path, options: GenerateOptions, console: Console) -> dict[str, Any]:
    """Write the samples that are still missing and print the file's name; return all samples and the seconds spent.

    A sample's text depends on its prompt, line and number, the settings and the model alone, so the finished file is
    the same however often it was interrupted. Each line has random numbers of its own; the first has those of a prompt
    given by itself.
    """
    prompts = read_prompts(path)
    output = options.output or path.with_suffix(".samples.jsonl")
    _check_output(output, path)
    settings = settings_hash(what_texts_depend_on(options), directory)
    if options.beams == 1 and not options.is_greedy:
        settings += BY_LINE
    total = len(prompts) * options.num_samples
    with SamplesFile(output, settings, prompts) as file:
        if file.rows:
            console.say(f"{len(file.rows):,} of {total:,} samples are already done ({output})")
        if file.stale:
            console.say(f"{file.stale:,} samples of changed lines are regenerated or dropped")
        seconds = dict.fromkeys(("compile_seconds", "prefill_seconds", "decode_seconds", "tokens_per_second"), 0.0)
        if len(file.rows) < total:
            seconds = _write(file, path, prompts, directory, options, console)
        file.finish()
    console.result(str(output))
    rows = [file.rows[place] for place in sorted(file.rows)]
    samples = [{key: value for key, value in row.items() if key != "settings"} for row in rows]
    return {"output": str(output), "samples": samples} | seconds


def _check_output(output: Path, prompts: Path) -> None:
    if output.suffix != ".jsonl":
        raise UsageError("samples are written as .jsonl", where="--output", fix=f"name it {output.name}.jsonl")
    if output.resolve() == prompts.resolve():
        raise UsageError("the samples would overwrite the prompts", where="--output", fix="name another file")


def _write(
    file: SamplesFile,
    path: Path,
    prompts: Sequence[FilePrompt],
    directory: Path,
    options: GenerateOptions,
    console: Console,
) -> dict[str, float]:
    """Decode what is missing, the longest prompts first; return the seconds it took and the speed."""
    total = len(prompts) * options.num_samples
    tokens = (total - len(file.rows)) * options.max_new_tokens
    model = TextModel(directory, options, tokens=tokens, tell=console.say)
    missing = _missing(file, path, prompts, model, options, console)
    indices = [(line - 1) * options.num_samples + sample for line, sample, _ in missing]
    generation = model.generate([prompt for _, _, prompt in missing], indices, options, live=False)
    with console.tally(total, len(file.rows)) as tally:
        for piece in generation:
            if piece.finished:
                draft, (line, sample, _) = generation.drafts[piece.row], missing[piece.row]
                file.append(line, sample, model.facts(draft))
                tally.add(len(draft.token_ids))
    for kept in generation.slides:
        console.warn(
            f"past the context of {model.n_positions} tokens: the context window slid; continuing from the last {kept}"
        )
    speed = generation.speed
    console.say(f"{generation.num_tokens:,} tokens, {speed['tokens_per_second']:.1f} tokens/s")
    return {"compile_seconds": model.compile_seconds} | speed


def _missing(
    file: SamplesFile,
    path: Path,
    prompts: Sequence[FilePrompt],
    model: TextModel,
    options: GenerateOptions,
    console: Console,
) -> list[tuple[int, int, Prompt]]:
    """Return (line, sample, prompt) of the samples that are still missing."""
    missing, unknown = [], 0
    for line, text in prompts:
        samples = [sample for sample in range(options.num_samples) if (line, sample) not in file.rows]
        if samples:
            try:
                prompt = model.read(text, options)
            except UsageError as error:
                raise InputError(error.message, where=f"{path}:{line}", fix=error.fix) from None
            unknown += prompt.unknown > 0
            missing += [(line, sample, prompt) for sample in samples]
    if unknown:
        console.warn(f"{unknown:,} prompts hold tokens that are unknown to the tokenizer")
    return sorted(missing, key=lambda sample: -len(sample[2].ids))


# --- the file of prompts ---


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
        line = decoded(raw.removesuffix(b"\r"), where, first_byte=0)
        if line.strip():
            text = line if path.suffix == ".txt" else _prompt_of(line, where)
            prompts.append(FilePrompt(number, text))
    if not prompts:
        raise InputError("no prompt in this file", where=str(path), fix="write one a line")
    return prompts


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


# --- the file of samples ---


def settings_hash(settings: Mapping[str, Any], model: Path) -> str:
    """Return a hash of all that texts depend on but the prompt: the settings, the files of model and tokenizer."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in sorted([*model_files(model), *tokenizer_files(model)]):
        with translate_read_errors(path), open(path, "rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


class SamplesFile:
    """The samples of a prompts file, appended as they come; to be used in a `with`.

    `rows` has those that are done, by (line, sample). A last line that an interruption left half written is cut off;
    samples of prompts that have changed since are skipped, `stale` counts them. InputError where the file holds
    samples of other settings, or anything else.
    """

    def __init__(self, path: Path, settings: str, prompts: Sequence[FilePrompt]) -> None:
        self.path = path
        self.stale = 0
        self._settings = settings
        self.rows: dict[tuple[int, int], dict[str, Any]] = {}
        from filelock import lock_descriptor

        with translate_read_errors(path):
            if path.exists():
                require_regular(path)
            self._file = open(path, "a+b")  # noqa: SIM115  closed by __exit__
        try:
            if not lock_descriptor(self._file.fileno(), blocking=False):
                fix = "wait for it, or name another --output"
                raise InputError("another process writes this file", where=str(path), fix=fix)
            self._read(dict(prompts))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self.rows and not self.stale:
            self.path.unlink(missing_ok=True)  # an empty file would only puzzle

    def append(self, line: int, sample: int, facts: Mapping[str, Any]) -> None:
        """Write a sample, where a kill of this process leaves it."""
        row = {"line": line, "sample": sample, **facts, "settings": self._settings}
        self.rows[line, sample] = row
        self._file.write(_json_line(row))
        self._file.flush()

    def finish(self) -> None:
        """Put the samples in the order of their prompts, without those that are stale."""
        content = b"".join(_json_line(self.rows[place]) for place in sorted(self.rows))
        self._file.close()
        if self.path.read_bytes() != content:
            write_atomically(self.path, content)

    def _read(self, prompts: Mapping[int, str]) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        for number, raw in enumerate(content[:whole].split(b"\n")[:-1], start=1):
            row = self._checked(raw, f"{self.path}:{number}")
            if prompts.get(row["line"]) == row["prompt"]:
                self.rows[row["line"], row["sample"]] = row
            else:
                self.stale += 1
        self._file.truncate(whole)

    def _checked(self, raw: bytes, where: str) -> dict[str, Any]:
        row = json_object(decoded(raw, where, first_byte=0), where, _ANOTHER)
        kinds = {"line": int, "sample": int, "prompt": str, "text": str, "token_ids": list, "settings": str}
        if any(not isinstance(row.get(key), kind) for key, kind in kinds.items()):
            raise InputError("no sample of gptkit generate", where=where, fix=_ANOTHER)
        if row["settings"] != self._settings:
            raise InputError("samples of other settings, another model or an older gptkit", where=where, fix=_ANOTHER)
        return row


def _json_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, allow_nan=False).encode() + b"\n"
