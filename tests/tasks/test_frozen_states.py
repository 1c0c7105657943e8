"""Frozen states are the model's own, at each sequence's last token; they are computed once and change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt_toy import FAMILIES, toy
from gptkit.model.loading import load_model, save_model
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.tasks.encoding import EncodedExamples
from gptkit.tasks.frozen_states import Site, fingerprint_of, frozen_states, running_states

SITES = [Site(layer, name) for layer in range(3) for name in ("residual", "mlp")]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "cache"))


def encoded(lengths: list[int], each: int = 1) -> EncodedExamples:
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 61, sum(lengths)).astype(np.int32)
    return EncodedExamples(ids, np.cumsum([0, *lengths]), each, None, {})


def sequences(examples: EncodedExamples) -> list[list[int]]:
    return [part.tolist() for part in np.split(examples.ids, examples.offsets[1:-1])]


def own_states(model: GPTForCausalLM, ids: torch.Tensor) -> dict[Site, torch.Tensor]:
    """Return what the model itself records of its residual stream, and its MLPs' hidden units by their formula."""
    found: dict[Site, torch.Tensor] = {}
    body: Any = model.transformer
    with torch.no_grad():
        hidden = body.drop(body.wte(ids) + body.wpe(torch.arange(ids.shape[1])))
        for layer, block in enumerate(body.h):
            if block.pre_norm:
                read = hidden + block.attn(block.ln_1(hidden))[0]
                found[Site(layer, "mlp")] = block.mlp.act(block.mlp.c_fc(block.ln_2(read)))
            else:
                read = block.ln_1(hidden + block.attn(hidden)[0])
                found[Site(layer, "mlp")] = block.mlp.act(block.mlp.c_fc(read))
            hidden = found[Site(layer, "residual")] = block(hidden)
    return found


@pytest.mark.parametrize("pre_norm", FAMILIES)
@pytest.mark.parametrize("each", [1, 2])
def test_states_equal_the_models_own_at_the_last_token(pre_norm: bool, each: int) -> None:
    model = toy(pre_norm)
    examples = encoded([5, 24, 1, 7, 24, 12], each)
    found = frozen_states(model, examples, SITES, fingerprint="toy")
    for row, ids in enumerate(sequences(examples)):
        own = own_states(model, torch.tensor([ids]))
        for site in SITES:
            assert found[site][row] == pytest.approx(own[site][0, -1].numpy(), rel=1e-4, abs=1e-5)


def test_states_of_one_sequence_are_exactly_the_models_hidden_states() -> None:
    model, examples = toy(), encoded([8])
    found = frozen_states(model, examples, SITES, fingerprint="toy")
    output = model.transformer(torch.tensor([examples.ids.tolist()]), output_hidden_states=True)
    for layer in range(2):  # the last is after the final layer norm
        assert np.array_equal(found[Site(layer, "residual")][0], output.hidden_states[layer + 1][0, -1].detach())
    last = torch.from_numpy(np.array(found[Site(2, "residual")][0]))
    assert np.array_equal(model.transformer.ln_f(last).detach(), output.last_hidden_state[0, -1].detach())


def test_running_states_end_in_the_frozen_ones() -> None:
    model, examples = toy(), encoded([9])
    frozen = frozen_states(model, examples, SITES, fingerprint="toy")
    for site, states in zip(SITES, running_states(model, examples.ids.tolist(), SITES), strict=True):
        assert states.shape == (9, frozen[site].shape[1])
        assert states[-1] == pytest.approx(frozen[site][0], rel=1e-4, abs=1e-5)


def test_they_are_computed_once_and_the_model_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples = toy(), encoded([5, 24, 3])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = {site: np.array(states) for site, states in frozen_states(model, examples, SITES, fingerprint="a").items()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    runs: list[int] = []
    forward = type(model.transformer).forward
    monkeypatch.setattr(type(model.transformer), "forward", lambda *a, **k: (runs.append(1), forward(*a, **k))[1])
    reached: list[int] = []
    again = frozen_states(model, examples, SITES, fingerprint="a", reached=reached.append)
    assert not runs
    assert reached == [3]
    assert all(np.array_equal(again[site], first[site]) for site in SITES)
    frozen_states(model, examples, SITES, fingerprint="another model", reached=reached.append)
    frozen_states(model, encoded([5, 24, 4]), SITES, fingerprint="a")
    assert len(runs) >= 2


def test_the_fingerprint_follows_weights_and_configuration(tmp_path: Path) -> None:
    prints = set()
    for number, model in enumerate([toy(), toy(seed=1), toy(activation_function="gelu"), toy()]):
        save_model(model, tmp_path / str(number))
        prints.add(fingerprint_of(load_model(tmp_path / str(number))))
    assert len(prints) == 3
