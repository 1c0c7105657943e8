"""Types of heads: a model whose heads are built by hand to be of each type is found to be exactly that."""

from __future__ import annotations

import numpy as np
import pytest

from built_toy import built_by_hand
from gpt_toy import FAMILIES, toy
from gptkit.inspect.head_types import HEAD_TYPES, NamedHead, head_types_of, repeated_tokens
from gptkit.model.modeling_gpt import GPTForCausalLM


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_heads_built_by_hand_score_one(pre_norm: bool) -> None:
    found = head_types_of(built_by_hand(pre_norm))
    assert found.scores[0, 0, 0] == found.scores[0, 1, 1] == found.scores[1, 0, 2] == 1.0
    assert found.scores[1, 1].max() < 0.4  # nothing was built there
    expected = [(0, 0, "previous-token"), (0, 1, "first-token"), (1, 0, "induction")]
    assert [head[:3] for head in found.names()] == expected
    assert found.clearest() == (0, 0)


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_an_untrained_model_has_no_types(pre_norm: bool) -> None:
    found = head_types_of(GPTForCausalLM(toy(pre_norm).config).eval())
    assert found.names() == ()
    assert found.scores.shape == (3, 4, len(HEAD_TYPES))


def test_of_several_types_the_strongest_counts() -> None:
    found = head_types_of(built_by_hand(True))
    found.scores[1, 1] = (0.5, 0.39, 0.6)
    assert found.names()[-1] == NamedHead(1, 1, "induction", pytest.approx(0.6))


def test_the_random_tokens_are_distinct_and_repeated_as_far_as_the_model_allows() -> None:
    for vocab_size, n_positions, length in ((50257, 1024, 64), (40, 1024, 38), (50257, 24, 12)):
        drawn = repeated_tokens(vocab_size, n_positions, {0, 5})
        assert drawn.shape == (4, 2 * length)
        assert (drawn[:, :length] == drawn[:, length:]).all()
        assert all(len({*row.tolist()} - {0, 5}) == length for row in drawn)
    assert not np.array_equal(drawn[0], drawn[1])
