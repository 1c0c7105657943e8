"""From generated tokens to text: stop ids, forbidden ids, streaming by whole characters, stop strings, sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field

from gptkit.text.pieces import CLOSING, UNSPACED_END
from gptkit.text.tokenizers.any_tokenizer import NEWLINE_TOKEN, AnyTokenizer, separator_id

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# The end of a sentence, with all that belongs to it: settled by the white space, or another character, that follows.
_SENTENCE_END = re.compile(rf"[.!?\u2026]{CLOSING}*(?=\s)|(?>{UNSPACED_END})(?=[\s\S])")


def stop_ids(tokenizer: AnyTokenizer) -> frozenset[int]:
    """Return the ids that end a text: the document separator, unless it is GPT-1's newline, which also ends lines."""
    separator = separator_id(tokenizer)
    ends_lines = tokenizer.convert_ids_to_tokens(separator) == NEWLINE_TOKEN
    return frozenset() if ends_lines else frozenset([separator])


def never_sampled(tokenizer: AnyTokenizer, vocab_size: int) -> frozenset[int]:
    """Return the ids below `vocab_size` without text: those of no token, and special tokens but the separator."""
    tokens = frozenset(tokenizer.get_vocab().values()) - frozenset(tokenizer.all_special_ids)
    return frozenset(range(vocab_size)) - tokens - {separator_id(tokenizer)}


class TextStream:
    """Decodes the tokens that follow `context` one at a time; the pieces of text add up to the whole.

    A byte-level token may end inside a character: its text waits until later tokens complete it, or until `end`.
    """

    def __init__(self, tokenizer: AnyTokenizer, context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = list(context)  # the last emitted tokens, which determine spaces; then the waiting ones
        self._waiting = len(self._ids)  # where in _ids the waiting tokens begin
        self._emitted = self._decode()  # the text of the tokens before them

    def add(self, token_id: int) -> None:
        """Append a token whose text is not needed yet."""
        self._ids.append(token_id)

    def push(self, token_id: int) -> str:
        """Append a token; return the text that it completes, often none."""
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
        """Return the text that still waits, with U+FFFD for bytes that form no character."""
        piece = self._decode()[len(self._emitted) :]
        self._emitted += piece
        return piece

    def _decode(self) -> str:
        return str(self._tokenizer.decode(self._ids, clean_up_tokenization_spaces=False))


@dataclass
class Continuation:
    """The text that follows a prompt, up to the first stop string and the given number of sentences (0 = no limit).

    A sentence ends in . ! or ? before white space, or in 。 or its kin. Text that may be the beginning of a stop string
    is held back until more is known. With `live` pieces are emitted as they come; without it all text is emitted at the
    end, and decoded earlier only if it may have to be cut.
    """

    tokenizer: AnyTokenizer
    context: Sequence[int] = ()
    _: KW_ONLY
    stops: Sequence[str] = ()
    sentences: int = 0
    live: bool = True
    text: str = field(default="", init=False)  # emitted so far
    is_cut: bool = field(default=False, init=False)  # a stop string or the last sentence ended it

    def __post_init__(self) -> None:
        self._stream = TextStream(self.tokenizer, self.context)
        self._reads = self.live or bool(self.stops) or self.sentences > 0
        self._held = ""  # decoded but not emitted

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
        """Return where in the held text the continuation ends, None if it goes on."""
        places = [place for stop in self.stops if (place := self._held.find(stop)) >= 0]
        if self.sentences:
            # All emitted text lies before the cut: what follows a sentence settles its end.
            ends = [match.end() for match in _SENTENCE_END.finditer(self.text + self._held)]
            places += [place - len(self.text) for place in ends[self.sentences - 1 : self.sentences]]
        return min(places, default=None)

    def _begun_stop(self) -> int:
        """Return the length of the longest suffix of the held text that begins a stop string."""
        lengths = range(min(len(self._held), max(map(len, self.stops)) - 1), 0, -1)
        return next((n for n in lengths if any(stop.startswith(self._held[-n:]) for stop in self.stops)), 0)
