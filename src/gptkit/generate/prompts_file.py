"""`gptkit generate --prompts FILE`: sample every prompt of a file into a samples file, resumably.

    prompts.txt              one prompt per line; blank lines are skipped
    prompts.jsonl            {"prompt": ...} per line; other keys are ignored
    prompts.samples.jsonl    {"line", "sample", "prompt", "text", "token_ids", ..., "settings"} per line

A sample is done if its line number, its prompt and the hash of settings and model match. "settings" also marks samples
whose random numbers depend on their line: older versions used the same for every line, and their samples do not match.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from gptkit.console import Console
from gptkit.decoding.engines import choose_engine
from gptkit.decoding.text_model import Prompt, TextModel
from gptkit.decoding.text_options import what_texts_depend_on, with_chosen
from gptkit.errors import InputError, UsageError
from gptkit.generate.options import GenerateOptions
from gptkit.generate.show import note_slides
from gptkit.report.resuming import ANOTHER, check_output, json_row, open_to_append, settings_hash
from gptkit.system.encodings import UTF8, decode_text
from gptkit.system.files import write_atomically
from gptkit.system.reading import (
    json_object,
    json_string,
    not_text,
    open_text,
    unusable_character,
)
from gptkit.text.tokenizers.any_tokenizer import unknown_note

SUFFIXES = (".txt", ".jsonl")
BY_LINE = "-by-line"  # suffix of the hash: random numbers depend on the line
_KINDS = {"line": int, "sample": int, "prompt": str, "text": str, "token_ids": list, "settings": str}


def generate_file(path: Path, directory: Path, options: GenerateOptions, console: Console) -> dict[str, Any]:
    """Generate the missing samples and print the samples file's name; return all samples and the seconds spent.

    A sample's text depends only on its prompt, line and number, the settings and the model, so interruptions do not
    change the finished file. Each line has its own random numbers; the first has those of a single PROMPT.
    """
    prompts = read_prompts(path)
    output = options.output or path.with_suffix(".samples.jsonl")
    check_output(output, path, "samples", "prompts")
    total = len(prompts) * options.num_samples
    chosen = choose_engine(directory, options, tokens=total * options.max_new_tokens, say=console.say)
    settings = settings_hash(what_texts_depend_on(with_chosen(options, chosen.precision)), directory)
    if options.beams == 1 and not options.is_greedy:
        settings += BY_LINE
    with SamplesFile(output, settings, prompts) as file:
        if file.rows:
            console.say(f"{len(file.rows):,} of {total:,} samples are already done ({output})")
        if file.stale:
            console.say(f"{file.stale:,} samples of changed lines will be regenerated or dropped")
        seconds = dict.fromkeys(("compile_seconds", "prefill_seconds", "decode_seconds", "tokens_per_second"), 0.0)
        if len(file.rows) < total:
            seconds = _write(file, path, TextModel(directory, options, chosen), options, console)
        file.finish()
    console.result(str(output))
    rows = [file.rows[place] for place in sorted(file.rows)]
    samples = [{key: value for key, value in row.items() if key != "settings"} for row in rows]
    return {"output": str(output), "samples": samples} | seconds


def _write(
    file: SamplesFile, path: Path, model: TextModel, options: GenerateOptions, console: Console
) -> dict[str, float]:
    """Generate the missing samples, longest prompts first; return the seconds spent and the speed."""
    places = itertools.product(file.prompts, range(options.num_samples))  # (line, sample)
    missing = [place for place in places if place not in file.rows]
    read: dict[int, Prompt] = {}
    for line in dict.fromkeys(line for line, _ in missing):
        try:
            read[line] = model.read(file.prompts[line], options)
        except UsageError as error:
            raise InputError(error.message, where=f"{path}:{line}", fix=error.fix) from None
    if unknown := sum(prompt.unknown for prompt in read.values()):
        console.warn(unknown_note("the prompts", unknown, sum(len(prompt.ids) for prompt in read.values())))
    missing.sort(key=lambda place: -len(read[place[0]].ids))
    indices = [(line - 1) * options.num_samples + sample for line, sample in missing]
    generation = model.generate([read[line] for line, _ in missing], indices, options, live=False)
    with console.tally(len(file.rows) + len(missing), len(file.rows)) as tally:
        for piece in generation:
            if piece.finished:
                draft = generation.drafts[piece.row]
                file.append(*missing[piece.row], model.facts(draft))
                tally.add(len(draft.token_ids))
    note_slides(generation, model, console)
    speed = generation.speed
    console.say(f"{generation.num_tokens:,} tokens, {speed['tokens_per_second']:.1f} tokens/s")
    return {"compile_seconds": model.compile_seconds} | speed


# --- the file of prompts ---


def read_prompts(path: Path) -> dict[int, str]:
    """Return the prompts of a .txt or .jsonl by line number; InputError, with the line, for a bad one."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        fix = 'pass a .txt with one prompt per line, or a .jsonl of {"prompt": ...}'
        raise InputError("neither .txt nor .jsonl", where=str(path), fix=fix)
    prompts = {}
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            where, text = f"{path}:{number}", line.removesuffix("\n")
            if "\0" in text:
                raise not_text(path)
            if not text.strip():
                continue
            prompt = text if suffix == ".txt" else json_string(text, "prompt", where)
            if not prompt:
                raise InputError("the prompt is empty", where=where, fix="write some text, or remove the line")
            if character := unusable_character(prompt.replace("\0", "")):  # the prompt of a .jsonl may hold NUL
                raise InputError(f'"prompt" contains {character}', where=where, fix="correct or remove the line")
            prompts[number] = prompt
    if not prompts:
        raise InputError("no prompt in this file", where=str(path), fix="write one per line")
    return prompts


# --- the file of samples ---


class SamplesFile:
    """The samples of a prompts file, appended as they are generated; a context manager that locks the file.

    `rows` are the finished samples by (line, sample). A last line that was half written is cut off; samples of prompts
    that have changed are skipped and counted in `stale`. InputError if the file holds samples with different settings,
    or anything else.
    """

    def __init__(self, path: Path, settings: str, prompts: Mapping[int, str]) -> None:
        self.path = path
        self.stale = 0
        self._settings = settings
        self.prompts = prompts
        self.rows: dict[tuple[int, int], dict[str, Any]] = {}
        self._file = open_to_append(path)  # closed by __exit__
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self.rows and not self.stale:
            self.path.unlink(missing_ok=True)  # leave no empty file behind

    def append(self, line: int, sample: int, facts: Mapping[str, Any]) -> None:
        """Write and flush a sample, so that it survives a kill of this process."""
        row = {"line": line, "sample": sample, **facts, "settings": self._settings}
        self.rows[line, sample] = row
        self._file.write(json_row(row))
        self._file.flush()

    def finish(self) -> None:
        """Sort the samples by prompt and drop stale ones."""
        content = b"".join(json_row(self.rows[place]) for place in sorted(self.rows))
        self._file.close()
        if self.path.read_bytes() != content:
            write_atomically(self.path, content)

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        for number, raw in enumerate(content[:whole].split(b"\n")[:-1], start=1):
            where = f"{self.path}:{number}"
            row = json_object(decode_text(raw, str(self.path), line=number, default=UTF8), where, ANOTHER)
            if any(not isinstance(row.get(key), kind) for key, kind in _KINDS.items()):
                raise InputError("not a sample of gptkit generate", where=where, fix=ANOTHER)
            if row["settings"] != self._settings:
                message = "the file holds samples with different settings, or from a different model or an older gptkit"
                raise InputError(message, where=where, fix=ANOTHER)
            if self.prompts.get(row["line"]) == row["prompt"]:
                self.rows[row["line"], row["sample"]] = row
            else:
                self.stale += 1
        self._file.truncate(whole)
