"""What users see of a generation: the samples as they come, each token's probability, what there is to know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gptkit.console import Console
from gptkit.decoding.text import Continuation
from gptkit.decoding.text_model import Generation, TextModel, TextPiece


def print_samples(generation: Generation, opening: str, console: Console, *, live: bool) -> None:
    """Print each sample, `opening` and continuation, as they come or, without `live`, when they are whole."""
    continuations = [draft.continuation for draft in generation.drafts]
    try:
        for text in transcript(generation, opening, continuations, live=live):
            console.stream(text)
    except KeyboardInterrupt:
        console.stream("\n" if live else "")
        raise


def transcript(
    pieces: Iterable[TextPiece], opening: str, continuations: Sequence[Continuation], *, live: bool
) -> Iterator[str]:
    """Yield samples that are decoded together in their order: the first as it comes, each other once it is its turn.

    A sample is the opening (such as the prompt) and its continuation; before each stands a heading where there are
    several. Without `live` each is yielded when it is whole.
    """
    total, turn = len(continuations), 0
    finished = [False] * total

    def begin() -> str:
        return (f"{f' sample {turn + 1} ':=^80}\n" if total > 1 else "") + opening

    if live:
        yield begin()
    for row, piece, finished[row] in pieces:
        if row != turn:
            continue
        text = piece if live else ""
        while turn < total and finished[turn]:
            text += "\n" if live else f"{begin()}{continuations[turn].text}\n"
            turn += 1
            if live and turn < total:
                text += begin() + continuations[turn].text
        if text:
            yield text


def print_summary(generation: Generation, model: TextModel, console: Console) -> None:
    """Print the probabilities, if asked for, and say what is worth knowing after the text."""
    facts = [model.facts(draft) for draft in generation.drafts]
    for number, sample in enumerate(facts, start=1):
        if "tokens" in sample:
            _show_probabilities(f"sample {number}" if len(facts) > 1 else "", sample["tokens"], console)
    warn_of_slides(generation, model, console)  # not while the text streams, which the line would break on a terminal
    if empty := sum(not sample["token_ids"] for sample in facts):
        console.say(f"{empty} of {len(facts)} samples without text: the model's first token ended it")
    compiled = f"; compiling took {model.compile_seconds:.1f} s, once" if model.compile_seconds else ""
    speed = generation.speed["tokens_per_second"]
    console.say(f"{generation.num_tokens} tokens, {speed:.1f} tokens/s{compiled}")


def warn_of_slides(generation: Generation, model: TextModel, console: Console) -> None:
    for kept in generation.slides:
        console.warn(
            f"past the context of {model.n_positions} tokens: the context window slid; continuing from the last {kept}"
        )


def _show_probabilities(title: str, tokens: list[dict[str, Any]], console: Console) -> None:
    rows, colours = [], []
    for token in tokens:
        probability = token["probability"]
        alternatives = "  ".join(f'"{other["text"]}" {other["probability"]:.3f}' for other in token["alternatives"])
        rows.append((f'"{token["text"]}"', f"{probability:.4f}", token["rank"], alternatives))
        colours.append("green" if probability >= 0.5 else "yellow" if probability >= 0.1 else "red")
    console.table(title, ("token", "probability", "rank", "likeliest"), rows, colours)
