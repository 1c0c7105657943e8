"""Pseudo-log-likelihoods under a masked language model (Salazar et al. 2020, "Masked Language Model Scoring").

A token's log-probability is that of its id in a copy of the text in which it alone is masked, so all others are seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptkit.model.configuration_gpt import mask_token_of
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model_files import not_finite
from gptkit.scoring.protocols import Answer, Group, Request
from gptkit.scoring.scorer import PADDED_TOKENS
from gptkit.system.limits import translate_out_of_memory

Found = tuple[float, int, int]  # a token's log_prob, top and top_allowed, see Answer


@dataclass(frozen=True)
class MaskedScorer:
    """Answers requests as `Scorer` does, with the same arguments; a request has at most n_positions tokens."""

    model: GPTForCausalLM
    device: torch.device
    precision: str = "fp32"
    batch_size: int | None = None
    rank: int = 0
    count: int = 1
    everywhere: Callable[[Callable[[], Any]], list[Any]] = lambda work: [work()]

    def score(
        self,
        groups: Sequence[Group],
        banned: Sequence[int] = (),
        tick: Callable[[int], object] = lambda answered: None,
    ) -> list[tuple[Answer, ...]]:
        """Return the answer to each request, as `Scorer.score` does."""
        requests = [request for group in groups for request in group]
        by_length: dict[int, list[tuple[int, int]]] = defaultdict(list)  # copies of one length need no padding
        for number, request in enumerate(requests):
            by_length[len(request.ids)] += [(number, place) for place in range(request.start, len(request.ids))]

        def own_tokens() -> dict[tuple[int, int], Found]:
            found: dict[tuple[int, int], Found] = {}
            done, total = 0, sum(map(len, by_length.values()))
            for length, copies in sorted(by_length.items()):
                most = max(1, PADDED_TOKENS.get(self.device.type, PADDED_TOKENS["cpu"]) // length)
                size = min(most, self.batch_size or most)
                for start in range(size * self.rank, len(copies), size * self.count):
                    batch = copies[start : start + size]
                    found |= zip(batch, self._tokens(requests, batch, banned), strict=True)
                done += len(copies)
                tick(len(requests) * done // max(total, 1))
            return found

        tokens = {key: token for part in self.everywhere(own_tokens) for key, token in part.items()}
        answers = iter([_answer(number, request, tokens) for number, request in enumerate(requests)])
        return [tuple(next(answers) for _ in group) for group in groups]

    @torch.inference_mode()
    def _tokens(self, requests: Sequence[Request], copies: Sequence[tuple[int, int]], banned: Sequence[int]) -> Any:
        """Return what is found of each (request, place), from a copy of the request that is masked there."""
        ids = torch.from_numpy(np.stack([requests[number].ids for number, _ in copies])).to(self.device)
        places = torch.tensor([place for _, place in copies], device=self.device)[:, None]  # (copy, 1)
        targets = ids.gather(1, places)
        masked = ids.scatter(1, places, mask_token_of(self.model.config) or 0)
        with (
            translate_out_of_memory("use a smaller --batch-size"),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            hidden: Tensor = self.model.transformer(input_ids=masked, use_cache=False).last_hidden_state
            states = hidden[torch.arange(len(copies), device=self.device), places[:, 0]]  # (copy, n_embd)
            log_probs = self.model.lm_head(states).float().log_softmax(-1)  # (copy, vocab)
        if not bool(log_probs.isfinite().all()):
            raise not_finite("the model's log-probabilities are")
        top, own = log_probs.argmax(-1), log_probs.gather(1, targets)[:, 0]
        log_probs[:, list(banned)] = -torch.inf
        return zip(own.tolist(), top.tolist(), log_probs.argmax(-1).tolist(), strict=True)


def _answer(number: int, request: Request, tokens: dict[tuple[int, int], Found]) -> Answer:
    found = [tokens[number, place] for place in range(request.start, len(request.ids))]
    log_probs, top, allowed = (np.array([token[part] for token in found]) for part in range(3))
    return Answer(log_probs, top, allowed)
