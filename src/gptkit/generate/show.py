"""Print generated samples, token probabilities and a summary."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gptkit.console import Console
from gptkit.decoding.text import Continuation
from gptkit.decoding.text_model import Generation, TextModel, TextPiece
from gptkit.text.tokenizers.shown import visible


def print_samples(generation: Generation, opening: str, console: Console, *, live: bool) -> None:
    """Print each sample, `opening` and continuation: with `live` as it is generated, else when it is complete."""
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
    """Yield the text of samples that are decoded together, one sample after another.

    A sample is the opening (such as the prompt) and its continuation, under a heading if there are several. With `live`
    the current sample is yielded as it is generated, else each when it is complete.
    """
    total, turn = len(continuations), 0
    width = min(80, shutil.get_terminal_size((80, 24)).columns)
    finished = [False] * total

    def begin() -> str:
        return (f"{f' sample {turn + 1} ':=^{width}}\n" if total > 1 else "") + opening

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
    """Print the token probabilities, if requested, then notes and the speed."""
    facts = [model.facts(draft) for draft in generation.drafts]
    for number, sample in enumerate(facts, start=1):
        if "tokens" in sample:
            _show_probabilities(f"sample {number}" if len(facts) > 1 else "", sample["tokens"], console)
    note_slides(generation, model, console)  # only now, not to break up streamed text
    if empty := sum(not sample["token_ids"] for sample in facts):
        console.say(f"{empty} of {len(facts)} samples are empty: the model's first token ended the text")
    compiled = f"; one-time compilation took {model.compile_seconds:.1f} s" if model.compile_seconds else ""
    speed = generation.speed["tokens_per_second"]
    console.say(f"{generation.num_tokens} tokens, {speed:.1f} tokens/s{compiled}")


def note_slides(generation: Generation, model: TextModel, console: Console) -> None:
    if generation.slides:
        console.say(f"the model sees at most {model.n_positions} tokens: of a longer text only the end")


def _show_probabilities(title: str, tokens: list[dict[str, Any]], console: Console) -> None:
    rows, colours = [], []
    for token in tokens:
        probability = token["probability"]
        others = [(visible(other["piece"]), other["probability"]) for other in token["alternatives"]]
        alternatives = "  ".join(f"{piece} {chance:.3f}" for piece, chance in others)
        rows.append((visible(token["piece"]), f"{probability:.4f}", token["rank"], alternatives))
        colours.append("green" if probability >= 0.5 else "yellow" if probability >= 0.1 else "red")
    console.table(title, ("token", "probability", "rank", "most likely"), rows, colours)
