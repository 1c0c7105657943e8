"""Options for generating text: their validation, the prompt template, stop strings, and what a sample depends on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from gptkit.decoding.sampling import SamplingRules
from gptkit.decoding.steering import parse_steering
from gptkit.errors import UsageError
from gptkit.options import CompileChoice, DeviceName, option, recipe_only
from gptkit.system.encodings import unix_lines
from gptkit.system.reading import unusable_character

Quantize = Literal["none", "int8", "int4"]
Precision = Literal["auto", "fp32", "bf16", "int8"]
PLACEHOLDER = "{prompt}"
_ESCAPES = {r"\n": "\n", r"\r": "\r", r"\t": "\t", r"\\": "\\"}


@dataclass(frozen=True, kw_only=True)
class TextOptions(SamplingRules):
    """The options that, with the model and the prompt, determine a sample's text up to rounding."""

    max_new_tokens: int = option(200, "Generate at most this many tokens.", minimum=1)
    num_samples: int = option(1, "Samples per prompt.", minimum=1)
    seed: int = option(0, "Random seed for sampling.", minimum=0, maximum=2**31 - 1)
    stop: tuple[str, ...] = option(
        (), "End the text before this string; repeatable; \\n is a line break.", metavar="TEXT"
    )
    ignore_eos: bool = option(False, "Never sample the end-of-text token.", panel="Advanced")
    show_probs: bool = option(False, "Show each token's probability, rank and most likely alternatives.")
    template: str | None = recipe_only(
        None, "Text that the model reads, with {prompt} for the prompt; only the continuation is printed."
    )
    sentences: int = recipe_only(
        0,
        "End the text after this many sentences (. ! ? before white space, 。！？); 0 = no limit.",
        minimum=0,
    )


@dataclass(frozen=True, kw_only=True)
class DecodingOptions(TextOptions):
    """All options that determine a text, including search and arithmetic."""

    beams: int = option(1, "Search for the most likely text with this many beams; 1 = sample.", minimum=1, maximum=1000)
    quantize: Quantize = option("none", "Quantize the weights while loading.", panel="Speed")
    precision: Precision = option(
        "auto",
        "Precision of activations; int8 needs quantized weights on a CPU; auto = int8 there, bf16 on a GPU, else fp32.",
        panel="Speed",
    )
    steer: str | None = option(
        None,
        "Hold a hidden unit of an MLP at a value while sampling, in torch; gptkit probe finds units.",
        panel="Advanced",
        metavar="LAYER.UNIT=VALUE",
    )


@dataclass(frozen=True, kw_only=True)
class TextModelOptions(DecodingOptions):
    """DecodingOptions, plus where and how to compute, which no text depends on."""

    compile: CompileChoice = option(
        "auto", "Compiled decoding; auto = compile on CPUs with a C compiler, and for long jobs on GPUs.", panel="Speed"
    )
    device: DeviceName = option("auto", "Device; auto = a GPU if there is one.", panel="Advanced")
    batch_size: int | None = recipe_only(
        None, "Decode at most this many samples together [default: chosen by available memory].", minimum=1
    )


# The first options to identify a samples file. A later one counts only if it differs from its default, so that
# unfinished files from before it existed can still be resumed.
FIRST_HASHED = frozenset(
    {
        *("max_new_tokens", "top_k", "top_p", "top_p_rule", "temperature", "greedy", "repetition_penalty", "seed"),
        *("num_samples", "stop", "ignore_eos", "show_probs", "template", "sentences", "beams", "quantize", "precision"),
    }
)


def with_chosen(options: DecodingOptions, precision: Precision) -> DecodingOptions:
    """Return the options with the precision that was chosen; samples files have always called fp32 `auto`."""
    return dataclasses.replace(options, precision="auto" if precision == "fp32" else precision)


def what_texts_depend_on(options: DecodingOptions) -> dict[str, Any]:
    """Return the options that a text depends on, by name."""
    found = {}
    for field in dataclasses.fields(DecodingOptions):
        value = getattr(options, field.name)
        if field.name in FIRST_HASHED or value != field.default:
            found[field.name] = value
    return found


def check_settings(options: DecodingOptions) -> None:
    """Raise UsageError for values that suit no model, and for options that contradict each other."""
    if options.top_p <= 0:
        raise UsageError(f"{options.top_p:g} is out of range", where="--top-p", fix="pass a number above 0, at most 1")
    if options.template is not None and PLACEHOLDER not in options.template:
        message = f"the template does not contain {PLACEHOLDER}"
        raise UsageError(message, where="template", fix="add it where the prompt goes")
    for name, text in (*(("--stop", stop) for stop in options.stop), ("template", options.template or "")):
        if character := unusable_character(text):  # invalid bytes of an argument are surrogates here
            raise UsageError(f"{text!r} contains {character}", where=name, fix="write it in UTF-8")
    if options.precision == "int8" and options.quantize == "none":
        message = "activations in int8 need quantized weights"
        raise UsageError(message, where="--precision int8", fix="add --quantize int8 or --quantize int4")
    if options.steer is not None:
        parse_steering(options.steer)
    refuse_together(_contradictions(options))


def refuse_together(clashes: Iterator[tuple[bool, str, str]]) -> None:
    """Raise UsageError for the first clash (whether it occurs, the flags, the message) that occurs."""
    for occurs, flags, message in clashes:
        if occurs:
            raise UsageError(message, where=flags, fix="leave one of them out")


def _contradictions(options: DecodingOptions) -> Iterator[tuple[bool, str, str]]:
    is_heated = options.temperature not in (0.0, SamplingRules.temperature)
    clash = f"--greedy does not sample, but --temperature {options.temperature:g} is for sampling"
    yield options.greedy and is_heated, "--greedy, --temperature", clash
    if options.beams == 1:
        return
    beams = "--beams searches for the most likely text"
    for field in dataclasses.fields(SamplingRules):
        flag, value = f"--{field.name.replace('_', '-')}", getattr(options, field.name)
        is_harmless = value == field.default or (field.name, value) in (("temperature", 0.0), ("top_p_rule", "openai"))
        yield not is_harmless, f"--beams, {flag}", f"{beams}, but {flag} is for sampling"
    yield options.num_samples > 1, "--beams, --num-samples", f"{beams}, of which there is only one"
    yield options.show_probs, "--beams, --show-probs", f"{beams}, but --show-probs explains sampled tokens"
    unquantized = "beam search runs in transformers, which does not use quantized weights"
    yield options.quantize != "none", "--beams, --quantize", unquantized


def prompt_room(n_positions: int, max_new_tokens: int) -> int:
    """Return how many of a prompt's last tokens an evaluation keeps, to leave room for the text."""
    return max(1, n_positions // 2, n_positions - max_new_tokens)


def full_prompt(options: DecodingOptions, prompt: str) -> str:
    """Return the text that the model reads for `prompt`: the template with the prompt in it, if there is one."""
    return prompt if options.template is None else options.template.replace(PLACEHOLDER, prompt)


def stop_strings(options: DecodingOptions) -> list[str]:
    r"""Return the strings that end a text, with the escapes \n, \r, \t and \\ resolved, and CR as in text files."""
    return [unix_lines(re.sub(r"\\[nrt\\]", lambda match: _ESCAPES[match[0]], stop)) for stop in options.stop]
