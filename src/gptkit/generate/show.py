"""What users see of a generation: the samples as they come, each token's probability, what there is to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptkit.console import Console
from gptkit.decoding.text import Transcript
from gptkit.decoding.text_model import Generation, TextModel


def tell(generation: Generation, opening: str, console: Console, *, live: bool) -> None:
    """Print each sample, `opening` and continuation, as they come or, without `live`, when they are whole."""
    drafts = generation.drafts
    transcript = Transcript([opening] * len(drafts), [draft.continuation for draft in drafts], live=live)
    console.stream(transcript.open())
    try:
        for told in generation:
            if text := transcript.add(told.row, told.piece, told.finished):
                console.stream(text)
    except KeyboardInterrupt:
        console.stream("\n" if live else "")
        raise


def say_notices(generation: Generation, model: TextModel, console: Console) -> None:
    """Print the probabilities, if asked for, and say what is worth knowing after the text."""
    facts = [model.facts(draft) for draft in generation.drafts]
    for number, one in enumerate(facts, start=1):
        if "tokens" in one:
            _show_probabilities(f"sample {number}" if len(facts) > 1 else "", one["tokens"], console)
    for kept in generation.slides:  # not while the text streams, which the line would break on a terminal
        console.warn(f"past the context of {model.n_positions} tokens: the model went on from the last {kept}")
    if empty := sum(not one["token_ids"] for one in facts):
        console.say(f"{empty} of {len(facts)} samples without text: the model's first token ended it")
    compiled = f"; compiling took {model.compile_seconds:.1f} s, once" if model.compile_seconds else ""
    console.say(f"{generation.num_tokens} tokens, {generation.tokens_per_second:.1f} tokens/s{compiled}")


def _show_probabilities(title: str, tokens: list[dict[str, Any]], console: Console) -> None:
    rows = [(f'"{one["text"]}"', f"{one['probability']:.4f}", one["rank"], _alternatives(one)) for one in tokens]
    colours = [_colour(one["probability"]) for one in tokens]
    console.table(title, ("token", "probability", "rank", "likeliest"), rows, colours)


def _alternatives(token: Mapping[str, Any]) -> str:
    return "  ".join(f'"{one["text"]}" {one["probability"]:.3f}' for one in token["alternatives"])


def _colour(probability: float) -> str:
    return "green" if probability >= 0.5 else "yellow" if probability >= 0.1 else "red"
