"""Between tokens and text: which ids end a text or never come, whole characters as they come, samples in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.data.gpt1_encoding import NEWLINE_TOKEN
from gptkit.data.tokenizers import separator_id
from gptkit.generation.decoding import Step

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def stop_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids that end a text: the separator of documents, but not GPT-1's newline, which ends lines too."""
    separator = separator_id(tokenizer)
    ends_lines = tokenizer.convert_ids_to_tokens(separator) == NEWLINE_TOKEN
    return frozenset() if ends_lines else frozenset([separator])


def never_sampled(tokenizer: Any, vocab_size: int) -> frozenset[int]:
    """Return the ids below `vocab_size` that say nothing: those without a token, and special ones but the separator."""
    tokens = frozenset(tokenizer.get_vocab().values()) - frozenset(tokenizer.all_special_ids)
    return frozenset(range(vocab_size)) - tokens - {separator_id(tokenizer)}


class TextStream:
    """Turns the tokens that follow `context` into text, piece by piece; the pieces add up to the whole, `text`.

    A byte-level token may end inside a character: what it says waits until later tokens complete it, or until `end`.
    """

    def __init__(self, tokenizer: Any, context: Sequence[int] = ()) -> None:
        self.text = ""
        self._tokenizer = tokenizer
        self._ids = list(context)  # the newest told tokens, which bear on the next ones' spaces; then those that wait
        self._waiting = len(self._ids)  # where in _ids the waiting ones begin
        self._told = self._decode()  # the text of those before

    def push(self, token_id: int) -> str:
        """Return the text that this token made whole; often none."""
        self._ids.append(token_id)
        decoded = self._decode()
        if decoded.endswith(_REPLACEMENT) or not decoded.startswith(self._told):
            return ""
        piece = decoded[len(self._told) :]
        self._ids = self._ids[self._waiting :]
        self._waiting = len(self._ids)
        self._told = self._decode()
        self.text += piece
        return piece

    def end(self) -> str:
        """Return what still waits, with U+FFFD in place of bytes that are no character."""
        piece = self._decode()[len(self._told) :]
        self._told += piece
        self.text += piece
        return piece

    def _decode(self) -> str:
        decoded: str = self._tokenizer.decode(self._ids, clean_up_tokenization_spaces=False)
        return decoded


class Transcript:
    """Tells samples that are decoded together in their order: the first as it comes, each other once it is its turn.

    A sample is its prompt and its continuation; before each stands `heading(number)` where there are several.
    """

    def __init__(self, tokenizer: Any, prompts: Sequence[str], prompt_ids: Sequence[Sequence[int]]) -> None:
        self.streams = [TextStream(tokenizer, ids) for ids in prompt_ids]
        self._prompts = prompts
        self._finished = [False] * len(self.streams)
        self._turn = 0

    def open(self) -> str:
        """Return the text before the first token."""
        return self._opening()

    def add(self, step: Step) -> str:
        """Return the text that is to be told after this step."""
        stream = self.streams[step.row]
        piece = stream.push(step.token_id) if step.token_id is not None else ""
        if step.finish_reason is not None:
            piece += stream.end()
            self._finished[step.row] = True
        if step.row != self._turn:
            return ""
        return piece + self._next_turns()

    def _next_turns(self) -> str:
        told = ""
        while self._turn < len(self.streams) and self._finished[self._turn]:
            self._turn += 1
            told += "\n"
            if self._turn < len(self.streams):
                told += self._opening() + self.streams[self._turn].text
        return told

    def _opening(self) -> str:
        heading = f"{f' sample {self._turn + 1} ':=^80}\n" if len(self.streams) > 1 else ""
        return heading + self._prompts[self._turn]
