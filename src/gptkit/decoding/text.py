"""Between tokens and text: which ids end a text or never come, whole characters as they come, where a text is cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field

from gptkit.text.tokenizers.any_tokenizer import NEWLINE_TOKEN, AnyTokenizer, separator_id

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# What ends a sentence and, once white space follows, the quotes and brackets that close with it.
_SENTENCE_END = re.compile(r"""[.!?\u2026]["'\u2019\u201d\u00bb)\]]*(?=\s)""")


def stop_ids(tokenizer: AnyTokenizer) -> frozenset[int]:
    """Return the ids that end a text: the separator of documents, but not GPT-1's newline, which ends lines too."""
    separator = separator_id(tokenizer)
    ends_lines = tokenizer.convert_ids_to_tokens(separator) == NEWLINE_TOKEN
    return frozenset() if ends_lines else frozenset([separator])


def never_sampled(tokenizer: AnyTokenizer, vocab_size: int) -> frozenset[int]:
    """Return the ids below `vocab_size` that say nothing: those without a token, and special ones but the separator."""
    tokens = frozenset(tokenizer.get_vocab().values()) - frozenset(tokenizer.all_special_ids)
    return frozenset(range(vocab_size)) - tokens - {separator_id(tokenizer)}


class TextStream:
    """Turns the tokens that follow `context` into text, piece by piece; the pieces add up to the whole.

    A byte-level token may end inside a character: what it says waits until later tokens complete it, or until `end`.
    """

    def __init__(self, tokenizer: AnyTokenizer, context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = list(context)  # the newest emitted tokens, which decide the next ones' spaces; then those that wait
        self._waiting = len(self._ids)  # where in _ids the waiting ones begin
        self._emitted = self._decode()  # the text of those before

    def add(self, token_id: int) -> None:
        """Take a token whose text is not asked for yet."""
        self._ids.append(token_id)

    def push(self, token_id: int) -> str:
        """Return the text that this token made whole; often none."""
        self.add(token_id)
        decoded = self._decode()
        if decoded.endswith(_REPLACEMENT) or not decoded.startswith(self._emitted):
            return ""
        piece = decoded[len(self._emitted) :]
        self._ids = self._ids[self._waiting :]
        self._waiting = len(self._ids)
        self._emitted = self._decode()
        return piece

    def end(self) -> str:
        """Return what still waits, with U+FFFD in place of bytes that are no character."""
        piece = self._decode()[len(self._emitted) :]
        self._emitted += piece
        return piece

    def _decode(self) -> str:
        return str(self._tokenizer.decode(self._ids, clean_up_tokenization_spaces=False))


@dataclass
class Continuation:
    """The text that follows a prompt, as far as it is emitted: it ends before the first of the `stops`, and after that
    many `sentences`, if not 0 (they end in . ! or ? before white space).

    What may be the beginning of a stop string waits until more is known. With `live` pieces are emitted as they come;
    without it everything is emitted at the end, and decoded earlier only where a cut may come.
    """

    tokenizer: AnyTokenizer
    context: Sequence[int] = ()
    _: KW_ONLY
    stops: Sequence[str] = ()
    sentences: int = 0
    live: bool = True
    text: str = field(default="", init=False)  # what has been emitted
    is_cut: bool = field(default=False, init=False)  # nothing follows any more

    def __post_init__(self) -> None:
        self._stream = TextStream(self.tokenizer, self.context)
        self._reads = self.live or bool(self.stops) or self.sentences > 0
        self._held = ""  # decoded, not emitted

    def push(self, token_id: int) -> str:
        """Return the piece of text to emit after this token; often none."""
        if not self._reads:
            self._stream.add(token_id)
            return ""
        return self._emit(self._stream.push(token_id), len(self.stops) > 0)

    def end(self) -> str:
        """Return the rest."""
        return self._emit(self._stream.end(), False)

    def _emit(self, piece: str, more_may_come: bool) -> str:
        if self.is_cut:
            return ""
        self._held += piece
        cut = self._cut()
        self.is_cut = cut is not None
        if cut is None:
            cut = len(self._held) - (self._begun_stop() if more_may_come else 0)
        text, self._held = self._held[:cut], self._held[cut:]
        self.text += text
        return text

    def _cut(self) -> int | None:
        """Return where in the held text the continuation ends, None if it continues."""
        places = [place for stop in self.stops if (place := self._held.find(stop)) >= 0]
        if self.sentences:
            # All emitted text lies before the cut: a sentence ends for good with the white space after it.
            ends = [match.end() for match in _SENTENCE_END.finditer(self.text + self._held)]
            places += [place - len(self.text) for place in ends[self.sentences - 1 : self.sentences]]
        return min(places, default=None)

    def _begun_stop(self) -> int:
        """Return the length of the longest end of the held text that begins a stop string."""
        lengths = range(min(len(self._held), max(map(len, self.stops)) - 1), 0, -1)
        return next((n for n in lengths if any(stop.startswith(self._held[-n:]) for stop in self.stops)), 0)
