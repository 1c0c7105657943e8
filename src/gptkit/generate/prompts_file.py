"""`gptkit generate --prompts FILE`: the samples of many prompts, written as they finish."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gptkit.console import Console
from gptkit.decoding.text_model import Prompt, TextModel
from gptkit.decoding.text_options import is_random, what_texts_depend_on
from gptkit.errors import InputError, UsageError
from gptkit.generate.prompt_files import BY_LINE, FilePrompt, SamplesFile, default_output, read_prompts, settings_hash
from gptkit.options import GenerateOptions


class _Waiting(NamedTuple):
    line: int
    sample: int
    prompt: Prompt


def generate_file(path: Path, directory: Path, options: GenerateOptions, console: Console) -> dict[str, Any]:
    """Write the samples that are not there yet and print the file's name; return all samples and the seconds spent.

    A sample's text depends on its prompt, line and number, the settings and the model alone, so the finished file is
    the same however often it was interrupted. Each line has random numbers of its own; the first has those of a prompt
    given by itself.
    """
    prompts = read_prompts(path)
    output = options.output or default_output(path)
    _check_output(output, path)
    settings = settings_hash(what_texts_depend_on(options), directory) + (BY_LINE if is_random(options) else "")
    total = len(prompts) * options.num_samples
    with SamplesFile(output, settings, prompts) as file:
        if file.rows:
            console.say(f"{len(file.rows):,} of {total:,} samples are there already ({output})")
        if file.outdated:
            console.say(f"{file.outdated:,} samples of lines that have changed are made anew or dropped")
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
    missing = total - len(file.rows)
    if not missing:
        return dict.fromkeys(("compile_seconds", "prefill_seconds", "decode_seconds", "tokens_per_second"), 0.0)
    model = TextModel(directory, options, tokens=missing * options.max_new_tokens, tell=console.say)
    waiting = _waiting(file, path, prompts, model, options, console)
    indices = [(one.line - 1) * options.num_samples + one.sample for one in waiting]
    generation = model.generate([one.prompt for one in waiting], indices, options, live=False)
    with console.tally(total, len(file.rows)) as tally:
        for told in generation:
            if told.finished:
                draft, place = generation.drafts[told.row], waiting[told.row]
                file.append(place.line, place.sample, model.facts(draft))
                tally.add(len(draft.token_ids))
    for kept in generation.slides:
        console.warn(f"past the context of {model.n_positions} tokens: the model went on from the last {kept}")
    console.say(f"{generation.num_tokens:,} tokens, {generation.tokens_per_second:.1f} tokens/s")
    return {
        "compile_seconds": model.compile_seconds,
        "prefill_seconds": generation.prefill_seconds,
        "decode_seconds": generation.decode_seconds,
        "tokens_per_second": generation.tokens_per_second,
    }


def _waiting(
    file: SamplesFile,
    path: Path,
    prompts: Sequence[FilePrompt],
    model: TextModel,
    options: GenerateOptions,
    console: Console,
) -> list[_Waiting]:
    waiting, unknown = [], 0
    for one in prompts:
        samples = [sample for sample in range(options.num_samples) if (one.line, sample) not in file.rows]
        if samples:
            try:
                prompt = model.read(one.text, options)
            except UsageError as error:
                raise InputError(error.message, where=f"{path}:{one.line}", fix=error.fix) from None
            unknown += prompt.unknown > 0
            waiting += [_Waiting(one.line, sample, prompt) for sample in samples]
    if unknown:
        console.warn(f"{unknown:,} prompts hold tokens that are unknown to the tokenizer")
    return sorted(waiting, key=lambda one: -len(one.prompt.ids))
