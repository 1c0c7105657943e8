"""`gptkit generate`: sample text from a model."""

from __future__ import annotations

import sys
from typing import Any

from transformers import PreTrainedTokenizerBase

from gptkit.commands.newest_model import newest_model
from gptkit.console import Console
from gptkit.data.tokenizers import encode_pieces, separator_id, tokenizer_in
from gptkit.errors import UsageError
from gptkit.generation.decoding import Decoder, Sample
from gptkit.generation.placement import choose_device, choose_dtype
from gptkit.generation.sampling import SamplingRules
from gptkit.generation.text import Transcript, never_sampled, stop_ids
from gptkit.model.loading import load_model, model_directory
from gptkit.options import GenerateOptions


def run(options: GenerateOptions, console: Console) -> dict[str, Any]:
    """Print each sample's prompt and continuation as it comes; return the samples and how long they took."""
    if options.top_p <= 0:
        raise UsageError(f"{options.top_p:g} is out of range", where="--top-p", fix="give a number above 0, up to 1")
    if options.greedy and options.temperature not in (0.0, GenerateOptions.temperature):
        message = f"--greedy draws nothing, --temperature {options.temperature:g} is for drawing"
        raise UsageError(message, where="--greedy, --temperature", fix="leave one of them out")
    prompt = _read_prompt(options.prompt, console)
    name = options.model or newest_model(console)
    device = choose_device(options.device)
    directory = model_directory(name)
    model = load_model(directory, dtype=choose_dtype(options.precision, device))
    model.to(device)  # type: ignore[arg-type]  # its wrapper in transformers loses `self`
    tokenizer = tokenizer_in(directory)
    prompt_ids = [_encode(tokenizer, prompt, console)] * options.num_samples
    slides: list[int] = []
    decoder = Decoder(
        model,
        prompt_ids,
        max_new_tokens=options.max_new_tokens,
        rules=_rules(options),
        seed=options.seed,
        stop_ids=stop_ids(tokenizer),
        forbidden_ids=never_sampled(tokenizer, model.config.vocab_size),
        on_slide=slides.append,
    )
    told = prompt_ids if prompt is not None else [[]] * options.num_samples  # the separator is no text
    texts = _tell(decoder, Transcript(tokenizer, [prompt or ""] * options.num_samples, told), console)
    for kept in slides:  # not while the text streams, which the line would break on a terminal
        console.warn(f"past the context of {model.config.n_positions} tokens: the model went on from the last {kept}")
    if empty := sum(not one.token_ids for one in decoder.samples):
        console.say(f"{empty} of {len(decoder.samples)} samples without text: the model's first token ended it")
    speed = decoder.tokens_per_second
    console.say(f"{sum(len(one.token_ids) for one in decoder.samples)} tokens, {speed:.1f} tokens/s")
    return {
        "model": name if name.startswith("hf:") else str(directory),
        "samples": [_shown(sample, prompt, text) for sample, text in zip(decoder.samples, texts, strict=True)],
        "compile_seconds": 0.0,
        "prefill_seconds": decoder.prefill_seconds,
        "decode_seconds": decoder.decode_seconds,
        "tokens_per_second": speed,
    }


def _read_prompt(prompt: str | None, console: Console) -> str | None:
    """Return the text to continue, of stdin for `-` less its last line break; None for unconditional text."""
    if prompt is None:
        return None
    try:
        if prompt == "-":
            if sys.stdin.isatty():
                console.say("reading the prompt up to the end of input (Ctrl-D)")
            prompt = sys.stdin.buffer.read().decode("utf-8").removesuffix("\n").removesuffix("\r")
        prompt.encode("utf-8")  # an argument's stray bytes have become surrogates
    except UnicodeError:
        raise UsageError("the prompt is not UTF-8", where="PROMPT", fix="convert it to UTF-8") from None
    if not prompt:
        fix = "give some text, or leave the argument out for unconditional text"
        raise UsageError("the prompt is empty", where="PROMPT", fix=fix)
    return prompt


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: str | None, console: Console) -> list[int]:
    """Return the prompt's ids; unconditional text begins with the separator of documents."""
    if prompt is None:
        return [separator_id(tokenizer)]
    ids: list[int] = encode_pieces(tokenizer, [prompt])[0].tolist()
    if unknown := ids.count(tokenizer.unk_token_id):
        console.warn(f"{unknown} of the prompt's {len(ids)} tokens are unknown to the tokenizer")
    return ids


def _rules(options: GenerateOptions) -> SamplingRules:
    temperature = 0.0 if options.greedy else options.temperature
    return SamplingRules(temperature=temperature, top_k=options.top_k, top_p=options.top_p)


def _tell(decoder: Decoder, transcript: Transcript, console: Console) -> list[str]:
    """Print the transcript as the decoder goes; return each sample's continuation."""
    console.stream(transcript.open())
    try:
        for step in decoder:
            if piece := transcript.add(step):
                console.stream(piece)
    except KeyboardInterrupt:
        console.stream("\n")
        raise
    return [stream.text for stream in transcript.streams]


def _shown(sample: Sample, prompt: str | None, text: str) -> dict[str, Any]:
    return {
        "prompt": prompt or "",
        "text": text,
        "token_ids": sample.token_ids,
        "num_tokens": len(sample.token_ids),
        "finish_reason": sample.finish_reason,
    }
