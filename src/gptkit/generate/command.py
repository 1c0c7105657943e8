"""`gptkit generate`: text from a prompt or from none; see prompts_file.py and interactive.py for the other modes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptkit.console import Console
from gptkit.decoding.engines import choose_engine
from gptkit.decoding.text_model import TextModel
from gptkit.decoding.text_options import check_settings, refuse_together
from gptkit.errors import UsageError
from gptkit.generate.interactive import converse
from gptkit.generate.options import GenerateOptions
from gptkit.generate.prompts_file import generate_file
from gptkit.generate.show import print_samples, print_summary
from gptkit.model_files import model_directory
from gptkit.system.reading import given_text
from gptkit.text.tokenizers.any_tokenizer import unknown_note
from gptkit.training.finished_runs import newest_model, readable_model


def run(options: GenerateOptions, console: Console) -> dict[str, Any]:
    """Print samples, write those of a prompts file, or hold a dialogue; return what `--json` prints."""
    refuse_together(_contradictions(options))
    if sys.stdin is None and options.interactive:
        raise UsageError("stdin is closed", where="stdin", fix="pass the prompt as an argument")
    if options.output is not None and options.prompts is None:
        fix = "leave it out, or pass the prompts: --prompts FILE"
        raise UsageError("--output is only for --prompts", where="--output", fix=fix)
    check_settings(options)
    prompt = _read_prompt(options.prompt, console)
    if prompt is None and options.template is not None and options.prompts is None and not options.interactive:
        raise UsageError("the template needs a prompt", where="PROMPT", fix="pass one, - for stdin, or --prompts FILE")
    model = readable_model(options.model, console) if options.model else newest_model(console)
    directory = model_directory(model)
    name = model if model.startswith("hf:") else str(directory)
    if options.interactive:
        converse(directory, options, console)
        return {"model": name}
    if options.prompts is not None:
        return {"model": name} | generate_file(options.prompts, directory, options, console)
    return {"model": name} | _generate(prompt, directory, options, console)


def _contradictions(options: GenerateOptions) -> Iterator[tuple[bool, str, str]]:
    file, dialogue = "--prompts provides the prompts", "--interactive asks for the prompts"
    at_end = "--json prints one object at the end"
    many, asks = options.prompts is not None, options.interactive
    yield many and options.prompt is not None, "PROMPT, --prompts", file
    yield many and asks, "--prompts, --interactive", f"{file}, but {dialogue}"
    yield many and bool(options.stream), "--prompts, --stream", "--prompts writes its samples to a file"
    yield asks and options.prompt is not None, "PROMPT, --interactive", dialogue
    yield asks and options.json, "--interactive, --json", f"{at_end}, but a dialogue has no result"
    yield asks and options.beams > 1, "--interactive, --beams", "a dialogue samples its replies"
    yield options.json and bool(options.stream), "--json, --stream", at_end
    if options.beams > 1:
        search = "--beams searches for the most likely text"
        yield bool(options.stream), "--beams, --stream", f"{search}, which is known only at the end"
        yield options.compile == "on", "--beams, --compile", f"{search}, which is never compiled"


def _read_prompt(prompt: str | None, console: Console) -> str | None:
    """Return the text to continue, for `-` stdin without its last line break; None for unconditional text."""
    if prompt is None:
        return None
    prompt = given_text(prompt, "the prompt", "PROMPT", console.say)
    if not prompt:
        fix = "pass some text, or omit it for unconditional text"
        raise UsageError("the prompt is empty", where="PROMPT", fix=fix)
    return prompt


def _generate(prompt: str | None, directory: Path, options: GenerateOptions, console: Console) -> dict[str, Any]:
    tokens = options.num_samples * options.max_new_tokens
    model = TextModel(directory, options, choose_engine(directory, options, tokens=tokens, say=console.say))
    read = model.read(prompt, options)
    if read.unknown:
        console.warn(unknown_note("the prompt", read.unknown, len(read.ids)))
    live = console.is_watched if options.stream is None else options.stream
    generation = model.generate([read] * options.num_samples, range(options.num_samples), options, live=live)
    opening = "" if prompt is None or options.template is not None else prompt
    print_samples(generation, opening, console, live=live)
    print_summary(generation, model, console)
    samples = [model.facts(draft) for draft in generation.drafts]
    return {"samples": samples, "compile_seconds": model.compile_seconds} | generation.speed
