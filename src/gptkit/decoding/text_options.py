"""The settings of a text: which of them go together, what the model reads for a prompt, what a text depends on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gptkit.decoding.sampling import SamplingRules
from gptkit.errors import UsageError
from gptkit.options import GenerateOptions

# With the model and the prompt, all that a sample's text depends on, apart from how the machine rounds.
SETTINGS = (
    *("max_new_tokens", "top_k", "top_p", "top_p_rule", "temperature", "greedy", "repetition_penalty", "num_samples"),
    *("seed", "stop", "ignore_eos", "show_probs", "template", "sentences"),
)
PLACE = "{prompt}"
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}
_LEAVE_OUT = "leave one of them out"


def check_settings(options: GenerateOptions) -> None:
    """Raise UsageError for what no model can do, or what says two things at once."""
    if options.top_p <= 0:
        raise UsageError(f"{options.top_p:g} is out of range", where="--top-p", fix="give a number above 0, up to 1")
    if options.template is not None and PLACE not in options.template:
        raise UsageError("the template has no place for the prompt", where="template", fix=f"write {PLACE} into it")
    for is_there, flags, message in _contradictions(options):
        if is_there:
            raise UsageError(message, where=flags, fix=_LEAVE_OUT)


def _contradictions(options: GenerateOptions) -> Iterator[tuple[bool, str, str]]:
    heat = f"--temperature {options.temperature:g} is for drawing"
    is_drawn = options.temperature not in (0.0, GenerateOptions.temperature)
    yield options.greedy and is_drawn, "--greedy, --temperature", f"--greedy draws nothing, {heat}"
    if options.beams == 1:
        return
    beams = "--beams searches for the likeliest text"
    yield options.greedy, "--beams, --greedy", f"{beams}, --greedy takes the likeliest token"
    yield is_drawn, "--beams, --temperature", f"{beams}, {heat}"
    yield options.top_k > 0, "--beams, --top-k", f"{beams}, --top-k {options.top_k} is for drawing"
    yield options.top_p < 1, "--beams, --top-p", f"{beams}, --top-p {options.top_p:g} is for drawing"
    yield options.num_samples > 1, "--beams, --num-samples", f"{beams}, which is one"
    penalty = f"{beams}, --repetition-penalty {options.repetition_penalty:g} changes what is likely"
    yield options.repetition_penalty != 1, "--beams, --repetition-penalty", penalty
    yield options.show_probs, "--beams, --show-probs", f"{beams}, --show-probs explains single tokens"
    slow = "beam search goes through the library's own decoder"
    yield options.quantize != "none", "--beams, --quantize", f"{slow}, with weights that are not quantised"
    yield options.compile == "on", "--beams, --compile", f"{slow}, which is not compiled"
    yield bool(options.stream), "--beams, --stream", f"{beams}, of which nothing is known before the end"


def check_vocabulary(options: GenerateOptions, vocab_size: int) -> None:
    """Raise UsageError for a k that the model's vocabulary does not reach."""
    if options.top_k > vocab_size:
        message = f"{options.top_k} is larger than the model's vocabulary of {vocab_size:,}"
        raise UsageError(message, where="--top-k", fix=f"give at most {vocab_size}, or 0 to keep all")


def sampling_rules(options: GenerateOptions) -> SamplingRules:
    """Return the rules by which the options choose a token."""
    return SamplingRules(
        temperature=0.0 if options.greedy else options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        top_p_rule=options.top_p_rule,
        repetition_penalty=options.repetition_penalty,
    )


def is_random(options: GenerateOptions) -> bool:
    """Return whether texts depend on random numbers."""
    return options.beams == 1 and sampling_rules(options).temperature > 0


def full_prompt(options: GenerateOptions, prompt: str) -> str:
    """Return what the model reads for `prompt`."""
    return prompt if options.template is None else options.template.replace(PLACE, prompt)


def stop_strings(options: GenerateOptions) -> list[str]:
    r"""Return the strings that end a text, where \n, \t and \\ stand for what they stand for everywhere."""
    return [re.sub(r"\\[nt\\]", lambda match: _ESCAPES[match[0]], stop) for stop in options.stop]


def what_texts_depend_on(options: GenerateOptions) -> dict[str, Any]:
    """Return the settings, those of the arithmetic included, that make a text what it is."""
    return {name: getattr(options, name) for name in (*SETTINGS, "beams", "quantize", "precision")}
