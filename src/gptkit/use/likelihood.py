"""The likelihood of texts under a language model: every token given all before it, the first after the separator.

texts -> ids -> windows of n_positions, as gptkit eval cuts them -> logits (token, vocabulary) -> nll and rank (token,)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptkit.decoding.engines import Piece, choose_engine, open_tokenizer
from gptkit.decoding.sampling import Array, array_namespace, log_sum_exp
from gptkit.decoding.text_options import TextModelOptions
from gptkit.errors import InputError
from gptkit.model_files import not_finite
from gptkit.scoring.encoder import Encoder
from gptkit.scoring.protocols import Request, TokenIds, windows
from gptkit.text.tokenizers.encoding import count_unknown

LOGITS = 2**22  # per forward pass: 16 MiB, which stay in the processor's caches better than more do


class TokenScores(NamedTuple):
    """The tokens of a text, each array (token,): ids, nats, and ranks, 1 for the model's most likely token."""

    ids: TokenIds
    nll: NDArray[np.float64]
    ranks: NDArray[np.int64]


class TextScorer:
    """A model directory opened to score texts, with the engine that `choose_engine` chooses for the options.

    Probabilities are over all rows of the head, even those of no token, as in gptkit eval. `tokens` and `unknown` count
    what was scored, and what of it stands for text that the tokenizer does not know.
    """

    def __init__(self, directory: Path, options: TextModelOptions, say: Callable[[str], None]) -> None:
        self._engine = choose_engine(directory, options, tokens=1, say=say).open()
        self.encoder = Encoder(open_tokenizer(directory), self._engine.n_positions)
        self.tokens = self.unknown = 0

    def score(self, texts: Sequence[str]) -> list[TokenScores]:
        """Return the scores of each text's tokens; InputError for ids beyond the model and for damaged weights."""
        encoded = self.encoder.encode(texts)
        largest = max((int(ids.max()) for ids in encoded if len(ids)), default=0)
        if largest >= self._engine.vocab_size:
            message = f"a text has token id {largest}, but the model's vocabulary ends at {self._engine.vocab_size - 1}"
            raise InputError(message, where="--model", fix="use the tokenizer that the model was trained with")
        self.tokens += sum(map(len, encoded))
        self.unknown += sum(count_unknown(self.encoder.tokenizer, ids) for ids in encoded)
        size = self._engine.n_positions
        streams = [np.concatenate([[self.encoder.separator], ids]) for ids in encoded]
        requests = [request for stream in streams for _, request in windows(stream, window=size, stride=size)]
        found = [_scores(*asked) for asked in self._forward(requests)]
        nll = np.concatenate([np.empty(0), *(scores for scores, _ in found)])
        ranks = np.concatenate([np.empty(0, np.int64), *(places for _, places in found)])
        ends = np.cumsum([len(ids) for ids in encoded])[:-1]
        return [TokenScores(*each) for each in zip(encoded, np.split(nll, ends), np.split(ranks, ends), strict=True)]

    def _forward(self, requests: Sequence[Request]) -> Iterator[tuple[Array, TokenIds]]:
        """Yield the logits (scored, vocabulary) that predict the scored tokens, in order, and the tokens' ids."""
        room = max(1, LOGITS // self._engine.vocab_size)
        for batch in _batches(requests, room):
            longest = max(len(request.ids) - 1 for request in batch)  # the last token is no input
            self._engine.open(len(batch), longest)
            for start in range(0, longest, room):  # more than once only if the batch is a single request
                parts = [_part(row, request, start, room) for row, request in enumerate(batch)]
                logits = self._engine.forward([piece for piece, _ in parts])
                yield logits, np.concatenate([targets for _, targets in parts])


def _batches(requests: Sequence[Request], room: int) -> Iterator[list[Request]]:
    """Yield requests in order, as many as have at most `room` inputs together, at least one."""
    batch: list[Request] = []
    taken = 0
    for request in requests:
        inputs = len(request.ids) - 1
        if batch and taken + inputs > room:
            yield batch
            batch, taken = [], 0
        batch.append(request)
        taken += inputs
    if batch:
        yield batch


def _part(row: int, request: Request, start: int, room: int) -> tuple[Piece, TokenIds]:
    """Return `room` inputs of a request from `start` on, and the ids of the scored tokens that they predict."""
    end = min(start + room, len(request.ids) - 1)
    targets = request.ids[max(start + 1, request.start) : end + 1]
    return Piece(row, start, request.ids[start:end].tolist(), wanted=len(targets)), targets


def _scores(logits: Array, targets: TokenIds) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return nll and rank (scored,) of the targets, given the logits (scored, vocabulary) that predict them."""
    xp = array_namespace(logits)
    if not bool(xp.all(xp.isfinite(logits))):
        raise not_finite("the model's logits are")
    on_device: Any = xp.asarray(targets, device=logits.device)
    chosen = xp.take_along_axis(logits, on_device[:, None], axis=-1)  # (scored, 1)
    nll = (log_sum_exp(logits) - chosen)[:, 0]
    ranks = 1 + xp.sum(xp.astype(logits > chosen, xp.int64), axis=-1)
    return np.array(nll.tolist(), np.float64), np.array(ranks.tolist(), np.int64)
