"""Surprisals are those that `gptkit eval` sums, and the cuts are those of the sampling rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpt_toy import FAMILIES, ids, toy
from gptkit.decoding.sampling import keep_top_p
from gptkit.inspect.loss import KS, PS, loss_of


def test_the_next_token_is_the_target_and_after_the_last_the_likeliest() -> None:
    row = ids(1, 12)[0]
    logits = toy()(input_ids=row[None]).logits[0].detach()
    loss = loss_of(logits, row)
    assert loss.targets.tolist() == [*row[1:].tolist(), int(logits[-1].argmax())]
    expected = torch.nn.functional.cross_entropy(logits[:-1], row[1:], reduction="sum")
    assert loss.total == pytest.approx(float(expected), abs=1e-4)
    assert loss.rank[-1] == 1
    assert (loss.top_ids[:, 0] == logits.argmax(-1).numpy()).all()
    for place, target in enumerate(loss.targets):
        assert loss.rank[place] == 1 + int((logits[place] > logits[place, target]).sum())


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_top_p_and_top_k_keep_what_sampling_keeps(pre_norm: bool) -> None:
    row = ids(1, 20)[0]
    logits = toy(pre_norm)(input_ids=row[None]).logits[0].detach()
    loss = loss_of(logits, row)
    probabilities = logits.softmax(-1)
    for p, kept in zip(PS, loss.top_p_kept, strict=True):
        allowed = keep_top_p(logits, p) > -torch.inf  # (position, vocab)
        assert kept.tolist() == allowed.sum(-1).tolist()
        own = allowed.gather(-1, torch.from_numpy(loss.targets)[:, None])[:, 0]
        assert ((loss.mass_above < p) == own.numpy()).all()
    for k, mass in zip(KS, loss.top_k_mass, strict=True):
        best = probabilities.topk(min(k, probabilities.shape[-1])).values.sum(-1)
        np.testing.assert_allclose(mass, best, atol=1e-5)


def test_of_equal_tokens_the_lower_id_is_ranked_first() -> None:
    loss = loss_of(torch.zeros(3, 7), torch.tensor([0, 4, 6]))
    assert loss.rank.tolist() == [5, 7, 1]
    np.testing.assert_allclose(loss.mass_above, [4 / 7, 6 / 7, 0], atol=1e-6)
    np.testing.assert_allclose(loss.entropy, np.log(7), atol=1e-6)
