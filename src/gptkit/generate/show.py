"""What users see of a generation: the samples as they come, each token's probability, what there is to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.console import Console
from gptkit.decoding.text import Continuation
from gptkit.decoding.text_model import Generation, TextModel


def print_samples(generation: Generation, opening: str, console: Console, *, live: bool) -> None:
    """Print each sample, `opening` and continuation, as they come or, without `live`, when they are whole."""
    drafts = generation.drafts
    transcript = Transcript([opening] * len(drafts), [draft.continuation for draft in drafts], live=live)
    console.stream(transcript.open())
    try:
        for piece in generation:
            if text := transcript.add(*piece):
                console.stream(text)
    except KeyboardInterrupt:
        console.stream("\n" if live else "")
        raise


class Transcript:
    """Prints samples that are decoded together in their order: the first as it comes, each other once it is its turn.

    A sample is its opening (such as the prompt) and its continuation; before each stands a heading where there are
    several. Without `live` each is printed when it is whole.
    """

    def __init__(self, openings: Sequence[str], continuations: Sequence[Continuation], *, live: bool = True) -> None:
        self._openings = openings
        self._continuations = continuations
        self._live = live
        self._finished = [False] * len(continuations)
        self._turn = 0

    def open(self) -> str:
        """Return the text before the first token."""
        return self._opening() if self._live else ""

    def add(self, row: int, text: str, finished: bool) -> str:
        """Return the text to print after this piece of one sample's continuation, `finished` with its last."""
        self._finished[row] = finished
        if row != self._turn:
            return ""
        return (text if self._live else "") + self._next_turns()

    def _next_turns(self) -> str:
        text = ""
        while self._turn < len(self._continuations) and self._finished[self._turn]:
            text += "\n" if self._live else f"{self._opening()}{self._continuations[self._turn].text}\n"
            self._turn += 1
            if self._live and self._turn < len(self._continuations):
                text += self._opening() + self._continuations[self._turn].text
        return text

    def _opening(self) -> str:
        heading = f"{f' sample {self._turn + 1} ':=^80}\n" if len(self._continuations) > 1 else ""
        return heading + self._openings[self._turn]


def print_summary(generation: Generation, model: TextModel, console: Console) -> None:
    """Print the probabilities, if asked for, and say what is worth knowing after the text."""
    facts = [model.facts(draft) for draft in generation.drafts]
    for number, sample in enumerate(facts, start=1):
        if "tokens" in sample:
            _show_probabilities(f"sample {number}" if len(facts) > 1 else "", sample["tokens"], console)
    for kept in generation.slides:  # not while the text streams, which the line would break on a terminal
        console.warn(
            f"past the context of {model.n_positions} tokens: the context window slid; continuing from the last {kept}"
        )
    if empty := sum(not sample["token_ids"] for sample in facts):
        console.say(f"{empty} of {len(facts)} samples without text: the model's first token ended it")
    compiled = f"; compiling took {model.compile_seconds:.1f} s, once" if model.compile_seconds else ""
    speed = generation.speed["tokens_per_second"]
    console.say(f"{generation.num_tokens} tokens, {speed:.1f} tokens/s{compiled}")


def _show_probabilities(title: str, tokens: list[dict[str, Any]], console: Console) -> None:
    rows = [
        (f'"{token["text"]}"', f"{token['probability']:.4f}", token["rank"], _alternatives(token)) for token in tokens
    ]
    colours = [_colour(token["probability"]) for token in tokens]
    console.table(title, ("token", "probability", "rank", "likeliest"), rows, colours)


def _alternatives(token: Mapping[str, Any]) -> str:
    return "  ".join(f'"{other["text"]}" {other["probability"]:.3f}' for other in token["alternatives"])


def _colour(probability: float) -> str:
    return "green" if probability >= 0.5 else "yellow" if probability >= 0.1 else "red"
