"""`--steer`: exactly one hidden unit is held, at every position, wherever torch decodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from generation_toy import write_model
from gpt_toy import FAMILIES, toy
from gptkit.decoding.engines import Piece, choose_engine
from gptkit.decoding.steering import Steering, parse_steering, steer
from gptkit.decoding.text_model import TextModel
from gptkit.decoding.text_options import TextModelOptions, what_texts_depend_on
from gptkit.errors import UsageError

IDS = torch.tensor([[3, 1, 4, 1, 5]])


def hidden_units(model: Any, layer: int) -> torch.Tensor:
    """Return what the projection of a layer's MLP reads, (batch, position, n_inner)."""
    read: list[torch.Tensor] = []
    hook = model.transformer.h[layer].mlp.c_proj.register_forward_pre_hook(
        lambda module, inputs: read.append(inputs[0])
    )
    with torch.no_grad():
        model(IDS)
    hook.remove()
    return read[0]


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_exactly_that_unit_is_held(pre_norm: bool) -> None:
    model, held = toy(pre_norm), toy(pre_norm)
    steer(held, Steering(1, 17, -2.5))
    before, after = hidden_units(model, 1), hidden_units(held, 1)
    assert (after[..., 17] == -2.5).all()
    others = torch.arange(after.shape[-1]) != 17
    assert torch.equal(before[..., others], after[..., others])
    assert torch.equal(hidden_units(model, 0), hidden_units(held, 0))
    assert not torch.equal(model(IDS).logits, held(IDS).logits)


def test_holding_a_unit_equals_removing_its_weights_and_adding_its_part() -> None:
    model, held = toy(), toy()
    steer(held, Steering(2, 5, 1.5))
    mlp: Any = model.transformer.h[2].mlp
    with torch.no_grad():
        mlp.c_proj.bias += 1.5 * mlp.c_proj.weight[:, 5]
        mlp.c_proj.weight[:, 5] = 0
        torch.testing.assert_close(model(IDS).logits, held(IDS).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "text", ["", "1.2", "1=2", "1.2=", "1.2=x", "1.2=nan", "1.2=inf", "-1.2=3", "1.2.3=4", "a.b=1"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="does not name a unit and a value"):
        parse_steering(text)


def test_a_value_may_be_negative_and_in_scientific_notation() -> None:
    assert parse_steering("0.12=-1.5e-2") == Steering(0, 12, -0.015)


def test_the_engine_is_torch_and_says_so(tmp_path: Path) -> None:
    model, said = write_model(tmp_path / "model"), list[str]()
    options = TextModelOptions(steer="0.3=4", device="cpu")
    engine = choose_engine(model, options, tokens=5, say=said.append).open()
    assert type(engine).__name__ == "TorchEngine"
    assert said == ["not compiling (--compile auto): --steer holds a unit in torch"]
    engine.open(1, 4)
    plain = choose_engine(model, TextModelOptions(compile="off", device="cpu"), tokens=5).open()
    plain.open(1, 4)
    piece = [Piece(0, 0, [1, 2])]
    assert not torch.equal(torch.as_tensor(engine.forward(piece)), torch.as_tensor(plain.forward(piece)))
    with pytest.raises(UsageError, match="--steer holds a unit in torch"):
        choose_engine(model, TextModelOptions(steer="0.3=4", device="cpu", compile="on"), tokens=5)


@pytest.mark.parametrize("more", [{"beams": 2}, {"quantize": "int8"}])
def test_beams_and_quantized_weights_are_steered_too(more: dict[str, Any], tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    texts = []
    for given in ({}, {"steer": "0.3=400"}):
        options = TextModelOptions(
            max_new_tokens=8, device="cpu", compile="off", greedy="beams" not in more, **more, **given
        )
        opened = TextModel(model, options, choose_engine(model, options, tokens=8))
        generation = opened.generate([opened.read(None, options)], [0], options, live=False)
        list(generation)
        texts.append(generation.drafts[0].token_ids)
    assert texts[0] != texts[1]


def test_samples_files_of_other_runs_keep_their_settings() -> None:
    assert "steer" not in what_texts_depend_on(TextModelOptions())
    assert what_texts_depend_on(TextModelOptions(steer="0.3=4"))["steer"] == "0.3=4"
