"""Pseudo-log-likelihood equals a hand loop over single masks, in any batches and on any number of processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gpt_toy import SIZES, shaken
from gptkit.model.configuration_gpt import MaskedConfig
from gptkit.model.modeling_masked import MaskedGPT
from gptkit.scoring.masked_scorer import MaskedScorer
from gptkit.scoring.protocols import Answer, Group, Request

MASK = 60


def groups() -> list[Group]:
    draw = np.random.default_rng(0)
    lengths = [(5, 9), (24,), (1, 9, 2)]
    return [tuple(Request(draw.integers(0, MASK, length), 1) for length in group) for group in lengths]


@pytest.fixture(scope="module")
def model() -> MaskedGPT:
    found: MaskedGPT = shaken(MaskedGPT(MaskedConfig(**SIZES, mask_token_id=MASK))).eval()
    return found


def scored(model: MaskedGPT, banned: tuple[int, ...] = (), ticks: list[int] | None = None, **more: Any) -> list[Answer]:
    scorer = MaskedScorer(model, device=torch.device("cpu"), **more)
    answers = scorer.score(groups(), banned, (ticks if ticks is not None else []).append)
    assert [*map(len, answers)] == [*map(len, groups())]
    return [answer for group in answers for answer in group]


def test_scores_are_those_of_a_hand_loop(model: MaskedGPT) -> None:
    ticks: list[int] = []
    for request, answer in zip(
        [request for group in groups() for request in group], scored(model, (3, 4), ticks), strict=True
    ):
        assert len(answer.log_probs) == len(request.ids) - 1
        for place in range(1, len(request.ids)):
            copy = torch.from_numpy(request.ids.copy())
            copy[place] = MASK
            with torch.no_grad():
                log_probs = model(input_ids=copy[None]).logits[0, place].log_softmax(-1)
            assert answer.log_probs[place - 1] == pytest.approx(log_probs[request.ids[place]].item(), abs=1e-5)
            assert answer.top[place - 1] == log_probs.argmax()
            log_probs[[3, 4]] = -torch.inf
            assert answer.top_allowed[place - 1] == log_probs.argmax()
    assert ticks[-1] == 6
    assert ticks == sorted(ticks)


def test_neither_batches_nor_processes_change_a_score(model: MaskedGPT) -> None:
    def on_both(work: Callable[[], Any]) -> list[Any]:
        theirs: list[Any] = []
        with pytest.raises(KeyError):  # the other process gets nothing back
            scored(model, batch_size=2, rank=1, count=2, everywhere=lambda own: theirs.append(own()) or [])
        assert theirs[0]
        return [work(), *theirs]

    whole, shared = scored(model), scored(model, batch_size=2, count=2, everywhere=on_both)
    for one, other in zip(whole, shared, strict=True):
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)
        assert np.array_equal(one.top, other.top)
