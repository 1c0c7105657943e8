"""Beam search finds what transformers finds, and with enough beams the most likely continuation of all."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from gptkit.decoding.beams import BeamSearch
from gptkit.decoding.loop import Sample
from gptkit.errors import InputError, UsageError
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM


def tiny_model(vocabulary: int) -> GPTForCausalLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": vocabulary, "n_positions": 12, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPTForCausalLM(GPTConfig(**sizes, initializer_range=0.3)).eval()


def beam_search(model: GPTForCausalLM, prompts: list[list[int]], **arguments: Any) -> list[Sample]:
    """Return the samples that the steps of a search add up to."""
    search = BeamSearch(model, prompts, **arguments)
    found: dict[int, list[int]] = {row: [] for row in range(len(prompts))}
    reasons = {}
    for step in search:
        found[step.row] += [] if step.token_id is None else [step.token_id]
        reasons[step.row] = step.finish_reason
    return [Sample(row, tokens, reasons[row]) for row, tokens in found.items()]


@torch.inference_mode()
def joint(model: GPTForCausalLM, prompt: list[int], new: tuple[int, ...]) -> float:
    """Return the log-probability of `new` after the prompt."""
    log_probabilities = model(input_ids=torch.tensor([[*prompt, *new]])).logits[0].log_softmax(dim=-1)
    return sum(log_probabilities[len(prompt) - 1 + place, token].item() for place, token in enumerate(new))


def test_the_winner_has_the_highest_joint_probability() -> None:
    """Compare all 4**3 continuations, cut at the stop token 0; greedy decoding misses the best one somewhere."""
    model = tiny_model(4)
    prompts = [[1, 2, 3], [2], [3, 3, 1, 2, 0], [1], [3, 1]]
    found = beam_search(model, prompts, beams=64, max_new_tokens=3, stop_ids=[0])
    greedy = beam_search(model, prompts, beams=1, max_new_tokens=3, stop_ids=[0])
    for prompt, sample in zip(prompts, found, strict=True):
        whole = {(*new[: new.index(0)], 0) if 0 in new else new for new in itertools.product(range(4), repeat=3)}
        best = max(whole, key=lambda new: joint(model, prompt, new))
        assert (*sample.token_ids, *([0] if sample.finish_reason == "stop" else [])) == best
    assert found != greedy


def test_it_is_transformers_own_search() -> None:
    model = tiny_model(50)
    ids = torch.tensor([[4, 5, 6]])
    theirs = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=4,
        do_sample=False,
        length_penalty=0.0,
        max_new_tokens=6,
        pad_token_id=0,
    )
    assert beam_search(model, [[4, 5, 6]], beams=4, max_new_tokens=6)[0].token_ids == theirs[0, 3:].tolist()


def test_only_the_given_tokens_stop_it() -> None:
    """GPT-1's newline ends a text for transformers' generate, and a line for gptkit."""
    model = tiny_model(50)
    free = beam_search(model, [[4]], beams=3, max_new_tokens=8)
    model.generation_config.eos_token_id = free[0].token_ids[2]
    assert beam_search(model, [[4]], beams=3, max_new_tokens=8) == free


def test_forbidden_tokens_never_come() -> None:
    model = tiny_model(50)
    (sample,) = beam_search(model, [[4]], beams=3, max_new_tokens=8, forbidden_ids=set(range(50)) - {1, 2})
    assert set(sample.token_ids) <= {1, 2}
    assert sample.finish_reason == "length"


@pytest.mark.parametrize("prompt", [[], [1] * 13, [50], [1] * 8])
def test_what_the_context_cannot_hold_is_refused(prompt: list[int]) -> None:
    with pytest.raises(UsageError):
        beam_search(tiny_model(50), [prompt], beams=2, max_new_tokens=5)


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    """3e38 is finite, but overflows in the product with the head."""
    model = tiny_model(50)
    torch.nn.init.constant_(model.transformer.ln_f.weight, value)
    with pytest.raises(InputError, match="the model's logits are not finite"):
        beam_search(model, [[4, 5, 6]], beams=3, max_new_tokens=5, forbidden_ids=[7])
