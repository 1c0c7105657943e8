"""Documents that are cut into passages as token ids: those of the whole text, each with the passage that it ends in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gptkit.scoring.encoder import shared_prefix
from gptkit.scoring.protocols import TokenIds
from gptkit.text.pieces import Piece
from gptkit.text.tokenizers.any_tokenizer import AnyTokenizer
from gptkit.text.tokenizers.encoding import encode_documents, encode_pieces
from gptkit.text.tokenizers.gpt1_encoding import GPT1Encoder, Part, join_lines

_OPENING = tuple(" \t\r\v\f\n")  # white space that every pre-tokenizer knows


def encode_passages(tokenizer: AnyTokenizer, documents: Sequence[Sequence[str]]) -> list[list[TokenIds]]:
    """Return the ids (tokens,) of every passage of each document; joined they are the ids of the joined passages.

    White space between two passages counts with the second, and a token across their border too. By GPT-1's rules a
    line that holds several passages is several lines but for the newline token.
    """
    runs = [_runs(passages) for passages in documents]
    texts = [["".join(run) for run in of] for of in runs]
    gpt1 = getattr(tokenizer, "encoder", None)
    if isinstance(gpt1, GPT1Encoder):
        encoded = [_gpt1_ids(gpt1, parts) for parts in texts]
    else:
        pieces = (Piece(text, number, "") for number, text in enumerate(text for parts in texts for text in parts))
        flat = (ids.astype(np.int64) for _, ids in encode_documents(tokenizer, pieces))
        encoded = [[next(flat) for _ in parts] for parts in texts]
    return [
        [part for run, ids in zip(of, found, strict=True) for part in _divided(run, ids, tokenizer)]
        for of, found in zip(runs, encoded, strict=True)
    ]


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


def _divided(run: Sequence[str], ids: TokenIds, tokenizer: AnyTokenizer) -> list[TokenIds]:
    """Return the ids of a run by its passages."""
    if len(run) == 1:
        return [ids]
    beginnings = ["".join(run[:count]) for count in range(1, len(run))]
    gpt1 = getattr(tokenizer, "encoder", None)
    if isinstance(gpt1, GPT1Encoder):
        encoded = [gpt1.encode_part(Part(text)) for text in beginnings]
    else:
        encoded = [found.astype(np.int64) for found in encode_pieces(tokenizer, beginnings)]
    ends = np.maximum.accumulate([shared_prefix(ids, found) for found in encoded])
    return np.split(ids, ends)
