"""Encode evaluation data for a model: texts, documents by passages, and (context, continuation) pairs as requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gptkit.scoring.protocols import Group, Request, TokenIds
from gptkit.text.pieces import Piece
from gptkit.text.tokenizers.any_tokenizer import AnyTokenizer, separator_id, unknown_id
from gptkit.text.tokenizers.encoding import encode_documents, encode_pieces
from gptkit.text.tokenizers.gpt1_encoding import GPT1Encoder, Part, join_lines

_OPENING = tuple(" \t\r\v\f\n")  # white space that every pre-tokenizer splits at
SHOWN = 40  # how many characters of a text a message quotes


class Encoder:
    """A model's tokenizer and n_positions, which are all that making requests needs."""

    unknown: int | None = None  # the id of what the tokenizer does not know, None if it knows everything

    def __init__(self, tokenizer: AnyTokenizer, n_positions: int) -> None:
        self.tokenizer = tokenizer
        self.n_positions = n_positions
        self.separator = separator_id(tokenizer)
        encoder = getattr(tokenizer, "encoder", None)
        self.gpt1 = encoder if isinstance(encoder, GPT1Encoder) else None
        self.unknown = unknown_id(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the ids (token,) of each text, with no token added; a literal `<|endoftext|>` is ordinary text."""
        return [ids.astype(np.int64) for ids in encode_pieces(self.tokenizer, texts)]

    def requests(self, pairs: Sequence[tuple[str, str]]) -> list[Request]:
        """Return a request for each (context, continuation): the tokens of the continuation are scored.

        Both are encoded as one text; the scored tokens are those after its common prefix with the context's ids, so a
        token across the border belongs to the continuation, as does white space at the context's end. An empty context
        becomes the separator. A context that does not fit into n_positions + 1 tokens with its continuation is cut at
        the left, down to its last token if the continuation itself does not fit. A continuation without tokens is
        impossible, as its empty sum would beat all others.
        """
        contexts = [context.rstrip() for context, _ in pairs]
        wholes = self.encode([context + continuation for context, continuation in pairs])
        distinct = list(dict.fromkeys(contexts))  # the choices of an example share theirs
        ids_of = dict(zip(distinct, self.encode(distinct), strict=True))
        asked = zip(wholes, contexts, pairs, strict=True)
        return [self._request(whole, ids_of[context], pair[1]) for whole, context, pair in asked]

    def count_unknown(self, groups: Iterable[Group], *, scored: bool = False) -> tuple[int, int]:
        """Return how many tokens of the requests, or of what they score, are unknown, and how many there are."""
        ids = [request.ids[request.start if scored else 0 :] for group in groups for request in group]
        return sum(int((tokens == self.unknown).sum()) for tokens in ids), sum(map(len, ids))

    def _request(self, whole: TokenIds, context: TokenIds, continuation: str) -> Request:
        start = shared_prefix(whole, context)
        if start == 0:
            whole, start = np.concatenate([[self.separator], whole]), 1
        text = continuation.strip()
        if not text or start == len(whole):
            shown = repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
            return Request(whole[:1], 1, impossible=f"{shown} has no tokens")
        too_many = max(0, len(whole) - (self.n_positions + 1))
        cut = min(too_many, start - 1)
        characters = len(continuation.removeprefix(" "))
        return Request(whole[cut:], start - cut, cut=too_many > 0, characters=characters)

    def encode_passages(self, documents: Sequence[Sequence[str]]) -> list[list[TokenIds]]:
        """Return the ids (token,) of every passage of each document; concatenated, they are the document's ids.

        White space between two passages belongs to the second, and so does a token across their border. GPT-1's rules
        treat a line with several passages as several lines, but without newline tokens between them.
        """
        runs = [_runs(passages) for passages in documents]
        texts = [["".join(run) for run in of] for of in runs]
        if self.gpt1 is not None:
            encoded = [_gpt1_ids(self.gpt1, parts) for parts in texts]
        else:
            pieces = (Piece(text, number, "") for number, text in enumerate(text for parts in texts for text in parts))
            flat = (ids.astype(np.int64) for _, ids in encode_documents(self.tokenizer, pieces))
            encoded = [[next(flat) for _ in parts] for parts in texts]
        return [
            [part for run, ids in zip(of, found, strict=True) for part in self._divided(run, ids)]
            for of, found in zip(runs, encoded, strict=True)
        ]

    def _divided(self, run: Sequence[str], ids: TokenIds) -> list[TokenIds]:
        """Split the ids of a run into those of its passages."""
        if len(run) == 1:
            return [ids]
        beginnings = ["".join(run[:count]) for count in range(1, len(run))]
        gpt1 = self.gpt1
        encoded = self.encode(beginnings) if gpt1 is None else [gpt1.encode_part(Part(text)) for text in beginnings]
        return np.split(ids, np.maximum.accumulate([shared_prefix(ids, found) for found in encoded]))


def shared_prefix(first: TokenIds, second: TokenIds) -> int:
    """Return the length of the common prefix."""
    length = min(len(first), len(second))
    differ = np.flatnonzero(first[:length] != second[:length])
    return int(differ[0]) if len(differ) else length


def _runs(passages: Sequence[str]) -> list[list[str]]:
    """Group the passages into runs that can be encoded separately; passages with no white space between share a run.

    White space at the end of a passage moves to the beginning of the next.
    """
    runs: list[list[str]] = []
    carried = ""
    for passage in passages:
        text = carried + passage
        bare = text.rstrip()
        carried = text[len(bare) :]
        if runs and not (bare.startswith(_OPENING) and any(runs[-1])):
            runs[-1].append(bare)
        else:
            runs.append([bare])
    if carried:
        runs[-1][-1] += carried
    return runs


def _gpt1_ids(encoder: GPT1Encoder, parts: Sequence[str]) -> list[TokenIds]:
    """Return the ids of the parts of a document; a newline token between two belongs to the second."""
    encoded: list[TokenIds] = []
    unescape_html = True
    for text in parts:
        encoded.append(encoder.encode_part(Part(text, unescape_html)))
        unescape_html = unescape_html and "<" not in text
    return list(join_lines(encoded, encoder.newline_id))
