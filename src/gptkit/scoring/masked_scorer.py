"""Pseudo-log-likelihoods under a masked language model (Salazar et al. 2020, "Masked Language Model Scoring").

A token's log-probability is that of its id in a copy of the text in which it alone is masked, so all others are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from gptkit.model.modeling_masked import MaskedGPT
from gptkit.scoring.packing import Batch
from gptkit.scoring.protocols import Answer, Group, Request
from gptkit.scoring.scorer import Scorer

Copy = tuple[int, int]  # number of a request, and the place that is masked


class MaskedScorer(Scorer):
    """Answers requests with pseudo-log-likelihoods; a request has at most n_positions tokens."""

    def __init__(self, model: MaskedGPT, **arguments: Any) -> None:
        super().__init__(model, **arguments)
        self.mask_token = model.config.mask_token_id or 0  # never None in a model that was read

    def score(
        self,
        groups: Sequence[Group],
        banned: Sequence[int] = (),
        tick: Callable[[int], object] = lambda answered: None,
    ) -> list[tuple[Answer, ...]]:
        """Return the answer to each request, as `Scorer.score` does."""
        requests = [request for group in groups for request in group]
        batches = list(self._batches(requests))

        def own_tokens() -> dict[Copy, tuple[Any, ...]]:
            found: dict[Copy, tuple[Any, ...]] = {}
            for number, batch in enumerate(batches):
                if number % self.count == self.rank:
                    found |= zip(batch, self._tokens(requests, batch, banned), strict=True)
                tick(len(requests) * (number + 1) // len(batches))
            return found

        tokens = {copy: token for part in self.everywhere(own_tokens) for copy, token in part.items()}
        answers = iter([_answer(number, request, tokens) for number, request in enumerate(requests)])
        return [tuple(next(answers) for _ in group) for group in groups]

    def _batches(self, requests: Sequence[Request]) -> Iterator[list[Copy]]:
        """Yield the copies of each length, which need no padding, in pieces of what a forward pass takes."""

        def length_of(number: int) -> int:
            return len(requests[number].ids)

        for length, numbers in groupby(sorted(range(len(requests)), key=length_of), key=length_of):
            copies = [(number, place) for number in numbers for place in range(requests[number].start, length)]
            most = max(1, self.padded_tokens // max(length, 1))
            size = min(most, self.batch_size or most)
            yield from (copies[start : start + size] for start in range(0, len(copies), size))

    def _tokens(self, requests: Sequence[Request], copies: Sequence[Copy], banned: Sequence[int]) -> Any:
        """Return log_prob, top and top_allowed of each copy's masked token."""
        ids = np.stack([requests[number].ids for number, _ in copies])  # (copy, token)
        each, places = np.arange(len(copies)), np.array([place for _, place in copies])
        targets = ids[each, places]
        ids[each, places] = self.mask_token
        batch = Batch((), ids, None, None, places=each * ids.shape[1] + places, targets=targets)
        return zip(*self.found(batch, banned), strict=True)


def _answer(number: int, request: Request, tokens: dict[Copy, tuple[Any, ...]]) -> Answer:
    found = [tokens[number, place] for place in range(request.start, len(request.ids))]
    log_probs, top, allowed = (np.array([token[part] for token in found]) for part in range(3))
    return Answer(log_probs, top, allowed)
