"""Texts as a model's token ids, documents by their passages, and pairs of context and continuation as requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gptkit.scoring.protocols import Group, Request, TokenIds
from gptkit.text.pieces import Piece
from gptkit.text.tokenizers.any_tokenizer import AnyTokenizer, separator_id
from gptkit.text.tokenizers.encoding import encode_documents, encode_pieces
from gptkit.text.tokenizers.gpt1_encoding import GPT1Encoder, Part, join_lines

_OPENING = tuple(" \t\r\v\f\n")  # white space that every pre-tokenizer knows
SHOWN = 40  # characters of a text that a message names


class Encoder:
    """A model's tokenizer and its n_positions: all of a model that making requests needs."""

    def __init__(self, tokenizer: AnyTokenizer, n_positions: int) -> None:
        self.tokenizer = tokenizer
        self.n_positions = n_positions
        self.separator = separator_id(tokenizer)
        encoder = getattr(tokenizer, "encoder", None)
        self.gpt1 = encoder if isinstance(encoder, GPT1Encoder) else None
        unknown = tokenizer.unk_token_id
        self.unknown = None if unknown == self.separator else unknown  # GPT-2's tokenizer calls its separator so

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the ids (token,) of each text; nothing is added, and a literal `<|endoftext|>` is text."""
        return [ids.astype(np.int64) for ids in encode_pieces(self.tokenizer, texts)]

    def requests(self, pairs: Sequence[tuple[str, str]]) -> list[Request]:
        """Return a request for each (context, continuation): the tokens of the continuation are scored.

        Both are encoded as one text, and scored is what follows the ids that it begins with like the context alone: a
        token across the border belongs to the continuation. White space at a context's end goes to the continuation.
        Without context the separator stands before the text. A context that does not fit into n_positions + 1 with its
        continuation is cut at the left; of one whose continuation alone does not fit, its last token is left. A
        continuation of which there is nothing to score is impossible: an empty sum would beat all others.
        """
        moved = [_space_moved(context, continuation) for context, continuation in pairs]
        wholes = self.encode([context + continuation for context, continuation in moved])
        contexts = list(dict.fromkeys(context for context, _ in moved))  # choices have theirs in common
        ids_of = dict(zip(contexts, self.encode(contexts), strict=True))
        return [self._request(whole, ids_of[pair[0]], pair[1]) for whole, pair in zip(wholes, moved, strict=True)]

    def count_unknown(self, groups: Iterable[Group]) -> tuple[int, int]:
        """Return how many tokens of the requests stand for what the tokenizer does not know, and how many there are."""
        ids = [request.ids for group in groups for request in group]
        unknown = 0 if self.unknown is None else sum(int((tokens == self.unknown).sum()) for tokens in ids)
        return unknown, sum(map(len, ids))

    def _request(self, whole: TokenIds, context: TokenIds, continuation: str) -> Request:
        start = shared_prefix(whole, context)
        if start == 0:
            whole, start = np.concatenate([[self.separator], whole]), 1
        scored = len(whole) - start if continuation.strip() else 0  # the space that joins an empty one is not its own
        if not scored:
            text = continuation.strip()
            shown = repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
            return Request(whole[:1], 1, impossible=f"{shown} has no tokens")
        too_many = max(0, len(whole) - (self.n_positions + 1))
        cut = min(too_many, start - 1)
        return Request(whole[cut:], start - cut, cut=too_many > 0)

    def encode_passages(self, documents: Sequence[Sequence[str]]) -> list[list[TokenIds]]:
        """Return the ids (tokens,) of every passage of each document; joined they are the ids of the joined passages.

        White space between two passages counts with the second, and a token across their border too. By GPT-1's rules
        a line that holds several passages is several lines but for the newline token.
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
        """Return the ids of a run by its passages."""
        if len(run) == 1:
            return [ids]
        beginnings = ["".join(run[:count]) for count in range(1, len(run))]
        gpt1 = self.gpt1
        encoded = self.encode(beginnings) if gpt1 is None else [gpt1.encode_part(Part(text)) for text in beginnings]
        return np.split(ids, np.maximum.accumulate([shared_prefix(ids, found) for found in encoded]))


def shared_prefix(first: TokenIds, second: TokenIds) -> int:
    """Return how many ids both begin with."""
    length = min(len(first), len(second))
    differ = np.flatnonzero(first[:length] != second[:length])
    return int(differ[0]) if len(differ) else length


def _space_moved(context: str, continuation: str) -> tuple[str, str]:
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def _runs(passages: Sequence[str]) -> list[list[str]]:
    """Return the passages in runs that can be encoded apart: one each, but where no white space parts two."""
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
    """Return the ids of the parts of a document; where a line ends between two, the second begins with its token."""
    encoded: list[TokenIds] = []
    unescape_html = True
    for text in parts:
        encoded.append(encoder.encode_part(Part(text, unescape_html)))
        unescape_html = unescape_html and "<" not in text
    return list(join_lines(encoded, encoder.newline_id))
