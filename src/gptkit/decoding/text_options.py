"""The options of a text: which of them go together, what the model reads for a prompt, what a text depends on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from gptkit.decoding.engines import Quantize
from gptkit.decoding.sampling import SamplingRules
from gptkit.errors import UsageError
from gptkit.options import CompileChoice, DeviceName, option, recipe_only

PLACE = "{prompt}"
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}


@dataclass(frozen=True, kw_only=True)
class TextOptions(SamplingRules):
    """With the model and the prompt, all that a sample's text depends on, apart from how the machine rounds."""

    max_new_tokens: int = option(200, "Generate at most this many tokens.", minimum=1)
    num_samples: int = option(1, "Samples per prompt.", minimum=1)
    seed: int = option(0, "Seed of the sampling.", minimum=0, maximum=2**31 - 1)
    stop: tuple[str, ...] = option(
        (), "End a text before this string; repeatable; \\n is a line break.", metavar="TEXT"
    )
    ignore_eos: bool = option(False, "Never sample the end-of-text token.", panel="Advanced")
    show_probs: bool = option(False, "Show each token's probability, rank and most likely alternatives.")
    template: str | None = recipe_only(
        None, "What the model reads, with {prompt} in it for the prompt; only the answer is printed."
    )
    sentences: int = recipe_only(
        0, "End a text after this many sentences: . ! or ? before white space; 0 = do not count.", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class DecodingOptions(TextOptions):
    """What makes a text what it is, the search and the arithmetic included."""

    beams: int = option(1, "Search for the most likely text as a whole, with this many beams.", minimum=1, maximum=1000)
    quantize: Quantize = option("none", "Quantize the weights while loading.", panel="Speed")
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto",
        "Arithmetic; auto = fp32, on a GPU bf16. In fp32 a sample's text is the same in any batch.",
        panel="Speed",
    )


@dataclass(frozen=True, kw_only=True)
class TextModelOptions(DecodingOptions):
    """DecodingOptions, and where and how to compute, on which no text depends."""

    compile: CompileChoice = option(
        "auto", "Compiled decoding; auto = on CPUs with a C compiler, and for long jobs on GPUs.", panel="Speed"
    )
    device: DeviceName = option("auto", "Where to compute.", panel="Advanced")
    batch_size: int | None = recipe_only(
        None, "Decode at most this many samples together [default: by available memory].", minimum=1
    )


# The first that samples files were hashed by. A younger one counts where it is not its default, so that the files that
# were written before it can still be finished.
FIRST_HASHED = frozenset(
    {
        *("max_new_tokens", "top_k", "top_p", "top_p_rule", "temperature", "greedy", "repetition_penalty", "seed"),
        *("num_samples", "stop", "ignore_eos", "show_probs", "template", "sentences", "beams", "quantize", "precision"),
    }
)


def what_texts_depend_on(options: DecodingOptions) -> dict[str, Any]:
    """Return the options that make a text what it is, by name."""
    found = {}
    for field in dataclasses.fields(DecodingOptions):
        value = getattr(options, field.name)
        if field.name in FIRST_HASHED or value != field.default:
            found[field.name] = value
    return found


def check_settings(options: DecodingOptions) -> None:
    """Raise UsageError for options that no model can follow, and for contradictions."""
    if options.top_p <= 0:
        raise UsageError(f"{options.top_p:g} is out of range", where="--top-p", fix="give a number above 0, up to 1")
    if options.template is not None and PLACE not in options.template:
        raise UsageError("the template has no place for the prompt", where="template", fix=f"write {PLACE} into it")
    refuse_together(_contradictions(options))


def refuse_together(clashes: Iterator[tuple[bool, str, str]]) -> None:
    """Raise UsageError for the first of (whether it is there, the flags, the message)."""
    for is_there, flags, message in clashes:
        if is_there:
            raise UsageError(message, where=flags, fix="leave one of them out")


def _contradictions(options: DecodingOptions) -> Iterator[tuple[bool, str, str]]:
    is_heated = options.temperature not in (0.0, SamplingRules.temperature)
    heat = f"--greedy draws nothing, --temperature {options.temperature:g} is for drawing"
    yield options.greedy and is_heated, "--greedy, --temperature", heat
    if options.beams == 1:
        return
    beams = "--beams searches for the most likely text"
    for field in dataclasses.fields(SamplingRules):
        flag, value = f"--{field.name.replace('_', '-')}", getattr(options, field.name)
        is_idle = value == field.default or (field.name, value) in (("temperature", 0.0), ("top_p_rule", "openai"))
        yield not is_idle, f"--beams, {flag}", f"{beams}, {flag} is for sampling"
    yield options.num_samples > 1, "--beams, --num-samples", f"{beams}, which is one"
    yield options.show_probs, "--beams, --show-probs", f"{beams}, --show-probs explains single tokens"
    slow = "beam search goes through the library's own decoder, with weights that are not quantised"
    yield options.quantize != "none", "--beams, --quantize", slow


def check_vocabulary(options: DecodingOptions, vocab_size: int) -> None:
    """Raise UsageError for a k that the model's vocabulary does not reach."""
    if options.top_k > vocab_size:
        message = f"{options.top_k} is larger than the model's vocabulary of {vocab_size:,}"
        raise UsageError(message, where="--top-k", fix=f"give at most {vocab_size}, or 0 to keep all")


def full_prompt(options: DecodingOptions, prompt: str) -> str:
    """Return what the model reads for `prompt`."""
    return prompt if options.template is None else options.template.replace(PLACE, prompt)


def stop_strings(options: DecodingOptions) -> list[str]:
    r"""Return the strings that end a text, where \n, \t and \\ stand for what they stand for everywhere."""
    return [re.sub(r"\\[nt\\]", lambda match: _ESCAPES[match[0]], stop) for stop in options.stop]
